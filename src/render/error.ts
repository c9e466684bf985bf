/** Errors: what happened, why, whether anything was written, what to type next. */
import type { ErrorCode, NextStep, TargetChanged } from "../base/errors.js";
import { type BannerView, bannerLines } from "./banner.js";
import { LABEL, nextLines } from "./command.js";
import { cell, hang, page, type Paper, paperOf } from "./layout.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** What is shown of an error; a `HoldpointError` is one. */
export interface ErrorView {
  readonly code: ErrorCode;
  readonly message: string;
  readonly why?: string | undefined;
  readonly next?: readonly NextStep[] | undefined;
  readonly targetChanged?: TargetChanged | undefined;
  readonly state?: string | undefined;
  /** Where it happened, once that is known. */
  readonly banner?: BannerView | undefined;
  /** Under `--verbose`: the driver's own words, already masked. An Error's own `cause`, an object, is not shown. */
  readonly cause?: unknown;
}

/** The error in the shape that all errors have; never without a `State`. */
export function renderError(view: ErrorView, palette: Palette, width: number): string {
  return page(errorLines(clean(plainError(view)), paperOf(palette, width)));
}

/**
 * The error in one line, for stderr where stdout has the whole of it as a document: a script that sends that to a
 * file would end without a word otherwise. Says whether anything was written, as every ending does.
 */
export function renderErrorLine(view: ErrorView): string {
  const { code, message, ...rest } = clean(plainError(view));
  return oneLine(`${code}: ${sentence(message)} ${stateOf(rest)}`);
}

/** The same for an ending that is no error, and yet not 0: `plan --detailed-exitcode`. */
export function renderExitLine(exit: number, name: string, targetChanged: TargetChanged): string {
  return oneLine(`exit ${exit} (${name}): ${stateOf({ targetChanged })}`);
}

function oneLine(text: string): string {
  return `${text.replaceAll(/\s*\n\s*/g, " ").trimEnd()}\n`;
}

/** `  Warning  …`: something that the reader can act on now. */
export function renderWarning(text: string, palette: Palette, width: number): string {
  return page(labelled("Warning", clean(text), paperOf(palette, width), "Warning".length + 2));
}

/** Only what is shown, as plain data: an Error keeps its message off its enumerable members and carries more than that. */
export function plainError(e: ErrorView): ErrorView {
  const { code, message, why, next, targetChanged, state, banner, cause } = e;
  return {
    code,
    message,
    why,
    next,
    targetChanged,
    state,
    banner,
    cause: typeof cause === "string" ? cause : undefined,
  };
}

/** The error's lines, of a clean view. */
export function errorLines(view: ErrorView, paper: Paper): string[] {
  return [
    ...(view.banner === undefined ? [] : bannerLines(view.banner, paper)),
    ...headline(view, paper),
    ...labelled("Why", view.why, paper),
    ...labelled("Cause", typeof view.cause === "string" ? view.cause : undefined, paper),
    ...labelled("State", stateOf(view), paper),
    ...nextLines(view.next ?? [], paper),
    ...nextLines([{ actor: "anyone", argv: ["holdpoint", "explain", view.code] }], paper, { label: "More" }),
  ];
}

/** `  Why    …`, a sentence wrapped beside its label; nothing when there is nothing to say. */
export function labelled(label: string, text: string | undefined, paper: Paper, room = LABEL): string[] {
  return fact(label, text === undefined ? text : sentence(text), paper, room);
}

/** `  Run    …`, an id, a path or a few words as they stand, wrapped beside their label. */
export function fact(label: string, text: string | undefined, paper: Paper, room = LABEL): string[] {
  if (text === undefined || text === "") return [];
  const head = paper.palette.form === "accessible" ? `${label}: ` : `  ${label.padEnd(room)}`;
  return hang({ text: head }, { text }, paper);
}

/** Closed by a full stop, unless it ends like something to paste or to complete. */
export function sentence(text: string): string {
  return /[\p{L}\p{N})'"%]$/u.test(text) ? `${text}.` : text;
}

/** The State line: begins with whether anything was written. */
export function stateOf(view: Pick<ErrorView, "targetChanged" | "state">): string {
  const changed = view.targetChanged ?? "no";
  switch (changed) {
    case "no":
      if (view.state === undefined) return "Nothing was written.";
      return /^nothing was /i.test(view.state) ? view.state : `Nothing was written. ${view.state}`;
    case "yes":
      return `THE TARGET WAS CHANGED. ${view.state ?? "All rows of the plan are written."}`;
    case "partly":
      return `THE TARGET WAS CHANGED. ${view.state ?? "Some rows of the plan are written, others are not."}`;
    case "unknown":
      return `It is not known whether anything was written. ${view.state ?? ""}`.trimEnd();
  }
}

function headline(view: ErrorView, paper: Paper): string[] {
  const p = paper.palette;
  const head = cell({ text: `${p.glyph.error} ${view.code}`, style: p.error }, { text: "  " });
  const body = { text: sentence(view.message) };
  // Beside a long code the sentence would be a narrow column: then it starts a line of its own.
  if (head.text.length * 2 <= paper.width) return hang(head, body, paper);
  return [...hang({ text: "" }, head, paper), ...hang({ text: "  " }, body, paper)];
}
