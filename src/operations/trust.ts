/** Trust, shown: who may sign, their groups, the policies, and the digest that a target pins. */
import type { TrustBundle } from "../approval/bundle.js";
import { bundleDigest } from "../approval/bundle.js";
import type { Person } from "../approval/requirement.js";
import type { Digest } from "../base/digest.js";
import type { Toolbox } from "./toolbox.js";

/** The trust bundle of one target, here and as pinned. */
export interface TrustOf {
  readonly target: string;
  readonly here: Digest;
  /** Null when the target is not pinned or cannot be asked. */
  readonly pinned: Digest | null;
  readonly reachable: boolean;
}

/** Everything that `trust show` shows. */
export interface Trust {
  readonly people: readonly Person[];
  readonly bundle: TrustBundle | null;
  readonly policies: readonly { readonly path: string; readonly digest: Digest }[];
  readonly targets: readonly TrustOf[];
}

/** Reads the bundle here and asks each target (or the one named) what it pins. Writes nothing. */
export async function showTrust(tools: Toolbox, on: string | null): Promise<Trust> {
  const names = on === null ? Object.keys(tools.project.config.targets) : [on];
  const targets: TrustOf[] = [];
  for (const name of names) targets.push(await pinnedBundle(tools, name));
  const first = names[0];
  const bundle = first === undefined ? null : tools.project.bundleFor(first);
  return {
    people: tools.project.people,
    bundle,
    policies: bundle?.policies ?? [],
    targets,
  };
}

async function pinnedBundle(tools: Toolbox, name: string): Promise<TrustOf> {
  const here = bundleDigest(tools.project.bundleFor(name));
  try {
    const { target } = await tools.openTarget(name);
    try {
      const { marker } = await target.identify();
      const systemPin = await tools.systemPin(name);
      return { target: name, here, pinned: systemPin?.bundle ?? marker?.bundle ?? null, reachable: true };
    } finally {
      await target.close();
    }
  } catch {
    return { target: name, here, pinned: null, reachable: false };
  }
}
