/** From policy files to checks that can be run: every condition is parsed, typed and bounded here, once. */
import { UsageError } from "../base/errors.js";
import { type Condition, conditionCompiler, type ExpressionFault } from "./expression.js";
import { columnOf, type PolicyFile, type PolicyRule } from "./schema.js";

/** A rule with its checked condition. */
export interface CompiledRule {
  readonly rule: PolicyRule;
  readonly condition: Condition;
}

/** A file with its checked rules, in the file's order. */
export interface CompiledFile {
  readonly file: PolicyFile;
  readonly rules: readonly CompiledRule[];
}

/** Policies ready to decide. No file at all is possible, and denies everything. */
export interface CompiledPolicies {
  readonly files: readonly CompiledFile[];
}

/**
 * Checks every condition of every file, also of those that are off.
 * @throws UsageError ERR_POLICY_INVALID naming `file:line:column` of the first fault, all faults in `details`;
 *   also for two files with one name.
 */
export function compilePolicies(files: readonly PolicyFile[]): CompiledPolicies {
  const compile = conditionCompiler();
  const faults: ExpressionFault[] = [...sameNames(files)];
  const compiled = files.map((file): CompiledFile => {
    const rules = file.rules.flatMap((rule): CompiledRule[] => {
      const checked = compile(rule.when);
      if (checked.ok) return [{ rule, condition: checked.condition }];
      faults.push(checked.fault);
      return [];
    });
    return { file, rules };
  });
  if (faults.length > 0) throw invalid(faults);
  return { files: compiled };
}

function sameNames(files: readonly PolicyFile[]): ExpressionFault[] {
  const first = new Map<string, PolicyFile>();
  return files.flatMap((file) => {
    const other = first.get(file.name);
    first.set(file.name, other ?? file);
    if (other === undefined) return [];
    return [{ at: columnOf(file.at), what: `the name ${file.name} is taken by ${other.file}`, marked: "" }];
  });
}

function invalid(faults: readonly ExpressionFault[]): UsageError {
  const [first] = faults;
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : "";
  return new UsageError({
    code: "ERR_POLICY_INVALID",
    message: `${first?.at ?? ""} ${first?.what ?? ""}${more}`,
    ...(first === undefined || first.marked === "" ? {} : { why: first.marked }),
    next: [
      {
        actor: "anyone",
        text: "Correct the policy and run the command again. Until then nothing is permitted.",
      },
    ],
    details: faults.map((f) => ({ at: f.at, what: f.what })),
  });
}
