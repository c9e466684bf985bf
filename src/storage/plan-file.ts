/**
 * The plan's file, `.hpplan`: statement, signature, ChangeSet. Reading one from a stranger is parsing, under
 * limits, and nothing more. Format page: `docs/formats/plan-file.md`.
 *
 * What this module promises is that the bytes are those that were written. Whether they are those that were
 * *signed* is asked of the statement: its signature, and the digest it names.
 */
import type { Digest } from "../base/digest.js";
import { IntegrityError, UsageError } from "../base/errors.js";
import type { ChangeSink, ChangeSource } from "../changeset/change.js";
import { type ContainerKind, type ContainerLimits, openContainer, writeContainer } from "./container.js";
import type { ReadOptions, WhenThere } from "./files.js";

/** A plan as it is written. */
export interface PlanParts {
  /** The statement's canonical bytes. */
  readonly statement: Uint8Array;
  /** The requester's SSHSIG blob; null where policy asks for none. */
  readonly signature: Uint8Array | null;
  readonly source: ChangeSource;
}

/** A plan's file that was read whole once: bytes as they were written, not yet believed. */
export interface PlanFile {
  readonly path: string;
  readonly statement: Uint8Array;
  readonly signature: Uint8Array | null;
  /** Digest at the file's end. */
  readonly digest: Digest;
  /**
   * Streams the ChangeSet into the sink; compare rows and digest with the statement.
   * @throws IntegrityError ERR_PLAN_ALTERED; the sink has then been given a part, to be thrown away.
   */
  readonly loadInto: (sink: ChangeSink) => Promise<{ readonly rows: number; readonly digest: Digest }>;
  /**
   * The digest of the ChangeSet's canonical stream, without taking it apart into rows.
   * @throws IntegrityError ERR_PLAN_ALTERED
   */
  readonly streamDigest: () => Promise<Digest>;
}

const PLAN: ContainerKind = {
  magic: "holdpoint-plan/1\n",
  // Mode script carries its statements; a signature with a certificate stays under a few KiB.
  sectionBytes: [16 * 1024 * 1024, 64 * 1024],
  altered: (path, why, cause) =>
    new IntegrityError({
      code: "ERR_PLAN_ALTERED",
      message: `${path} is not the plan that was written`,
      why,
      next: [
        {
          actor: "anyone",
          text: "Do not retry. Keep the file, make the plan again, and find out who changed it.",
        },
      ],
      cause,
    }),
  unknown: (path, why, cause) =>
    new UsageError({
      code: "ERR_PLAN_UNKNOWN",
      message: `${path} is not a plan`,
      why,
      next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
      cause,
    }),
};

/**
 * Writes a plan's file (0600): whole or not at all, and flushed.
 * @returns the digest at the file's end.
 * @throws UsageError ERR_USAGE when the file is there already and `whenThere` is `refuse` (the default).
 */
export async function writePlanFile(
  path: string,
  plan: PlanParts,
  whenThere: WhenThere = "refuse",
): Promise<{ readonly digest: Digest }> {
  const sections = [plan.statement, plan.signature ?? new Uint8Array()];
  return { digest: writeContainer(path, PLAN, sections, plan.source, whenThere) };
}

/**
 * Reads a plan's file and checks every byte of it.
 * @throws UsageError ERR_PLAN_UNKNOWN when it is not there or not a plan's file at all.
 * @throws IntegrityError ERR_PLAN_ALTERED when any byte is altered, missing or too many.
 */
export async function readPlanFile(path: string, options: ReadOptions & ContainerLimits): Promise<PlanFile> {
  const { sections, digest, loadInto, streamDigest } = openContainer(path, PLAN, options, options);
  const [statement = new Uint8Array(), signature = new Uint8Array()] = sections;
  return {
    path,
    statement,
    signature: signature.length === 0 ? null : signature,
    digest,
    loadInto: async (sink) => loadInto(sink),
    streamDigest: async () => streamDigest(),
  };
}
