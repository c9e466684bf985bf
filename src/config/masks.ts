/** What policies mask, beside what the configuration masks itself. */
import { UsageError } from "../base/errors.js";
import { type TargetConfig, maskedColumn } from "./target-section.js";
import type { Config } from "./config.js";

/**
 * The configuration with the columns that policies mask beside its own, on every target. They are asked for when somebody
 * first asks what is masked: most commands show no values.
 */
export function withMasks(config: Config, masks: () => readonly string[]): Config {
  const targets = Object.entries(config.targets).map(([name, target]): readonly [string, TargetConfig] => [
    name,
    {
      ...target,
      get mask() {
        const own = new Set(target.mask.map((m) => `${m.table}.${m.column}`));
        return [...target.mask, ...masks().flatMap((m) => (own.has(m) ? [] : [maskedColumn(m)]))];
      },
    },
  ]);
  return { ...config, targets: Object.fromEntries(targets) };
}

/**
 * Refuses sums of columns that a policy masks.
 * @throws UsageError ERR_CONFIG_INVALID: the sum of one row is its value.
 */
export function refuseMaskedSums(config: Config, masks: readonly string[]): void {
  for (const [name, { sums }] of Object.entries(config.targets)) {
    const masked = sums.find((s) => masks.includes(`${s.table}.${s.column}`));
    if (masked === undefined) continue;
    throw new UsageError({
      code: "ERR_CONFIG_INVALID",
      message: `targets.${name}.sums: ${masked.table}.${masked.column} is masked by a policy`,
      why: "the sum of one row is its value",
      next: [{ actor: "anyone", text: "Take it out of sums, or out of the policy's mask." }],
    });
  }
}
