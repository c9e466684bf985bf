/** The one document that `--json` prints, on success and on failure. Contract: `docs/json-output.md`. */
import { HoldpointError, type NextStep, type TargetChanged } from "../base/errors.js";
import { type ExitCode, exitName, exitOf } from "./exit-codes.js";

/** The document's error; absent parts are left out, `next` is always there. */
export interface EnvelopeError {
  readonly code: string;
  readonly what: string;
  readonly why?: string;
  readonly state?: string;
  readonly next: readonly NextStep[];
  readonly details?: unknown;
}

/** The document. `result` is null on failure unless the command had one all the same (a denied plan, conflicts). */
export interface Envelope {
  readonly schema: `holdpoint/${string}@${number}`;
  readonly ok: boolean;
  readonly exit: { readonly code: ExitCode; readonly name: string };
  readonly target_changed: TargetChanged;
  readonly result: unknown;
  readonly error: EnvelopeError | null;
  readonly warnings: readonly string[];
}

/** What a command knows when it ends. */
export interface EnvelopeFacts {
  readonly exit: ExitCode;
  readonly targetChanged: TargetChanged;
  readonly result?: unknown;
  readonly error?: HoldpointError;
  readonly warnings?: readonly string[];
}

/**
 * The document for `command` (`apply`, `log-verify`: words joined by a hyphen). `ok` is true for exits 0 and 20, which are what
 * was asked for.
 * @throws HoldpointError ERR_INTERNAL for a value that JSON would silently change: bigint, bytes, dates, NaN, functions.
 */
export function envelope(command: string, facts: EnvelopeFacts): Envelope {
  const document: Envelope = {
    schema: `holdpoint/${command}@1`,
    ok: facts.error === undefined && (facts.exit === 0 || facts.exit === 20),
    exit: { code: facts.exit, name: exitName(facts.exit) },
    target_changed: facts.targetChanged,
    result: facts.result ?? null,
    error: facts.error === undefined ? null : errorOf(facts.error),
    warnings: facts.warnings ?? [],
  };
  refuseLossy(document, "document");
  return document;
}

/** {@link envelope} of a failure: exit code and `target_changed` follow from the error. */
export function failureEnvelope(
  command: string,
  error: HoldpointError,
  extra: { readonly result?: unknown; readonly warnings?: readonly string[] } = {},
): Envelope {
  return envelope(command, { ...extra, exit: exitOf(error), targetChanged: error.targetChanged, error });
}

/** The document as it is printed: indented, one line feed at its end. */
export function envelopeText(document: Envelope): string {
  return `${JSON.stringify(document, null, 2)}\n`;
}

function errorOf(e: HoldpointError): EnvelopeError {
  return {
    code: e.code,
    what: e.message,
    ...(e.why === undefined ? {} : { why: e.why }),
    ...(e.state === undefined ? {} : { state: e.state }),
    next: e.next,
    ...(e.details === undefined ? {} : { details: e.details }),
  };
}

/** 64-bit integers travel as decimal text and bytes as hexadecimal or base64, decided where the result is made. */
function refuseLossy(v: unknown, at: string): void {
  switch (typeof v) {
    case "string":
    case "boolean":
    case "undefined":
      return;
    case "number":
      if (Number.isFinite(v) && (!Number.isInteger(v) || Number.isSafeInteger(v))) return;
      throw lossy(at, `the number ${v}`);
    case "bigint":
    case "symbol":
    case "function":
      throw lossy(at, `a ${typeof v}`);
    case "object":
      refuseLossyObject(v, at);
  }
}

function refuseLossyObject(v: object | null, at: string): void {
  if (v === null) return;
  if (Array.isArray(v)) {
    v.forEach((member: unknown, i) => refuseLossy(member, `${at}[${i}]`));
    return;
  }
  if (!isPlain(v)) throw lossy(at, `a ${v.constructor.name}`);
  for (const [key, member] of Object.entries(v)) refuseLossy(member, `${at}.${key}`);
}

/** Of any realm: inside jest's vm plain objects have another Object.prototype. */
function isPlain(v: object): boolean {
  const proto: unknown = Object.getPrototypeOf(v);
  return proto === null || Object.getPrototypeOf(proto) === null;
}

function lossy(at: string, what: string): HoldpointError {
  return new HoldpointError({
    code: "ERR_INTERNAL",
    message: `${at} holds ${what}, which JSON cannot carry exactly`,
  });
}
