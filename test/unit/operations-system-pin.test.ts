/** What root pins on a machine wins over a target's marker. */
import { describe, expect, test } from "@jest/globals";
import { bundleDigest, makeBundle } from "../../src/approval/bundle.js";
import { digestOf } from "../../src/base/digest.js";
import { type Examined, refuseOtherBundle } from "../../src/operations/judging/examine.js";
import type { Toolbox } from "../../src/operations/toolbox.js";

const bundle = makeBundle({ people: [], policies: [], guarding: { environment: "production" } });
const here = bundleDigest(bundle);
const other = digestOf("another bundle");
// Only what the check reads: no target is opened.
const tools = { bundles: { find: () => Promise.resolve(null) } } as unknown as Toolbox;
const examined = (
  pinned: string,
  system: { readonly identity: string; readonly bundle: string } | null,
): Examined =>
  ({
    target: { name: "shop-prod" },
    marker: pinned === "none" ? null : { identity: "sqlite:1", bundle: pinned },
    bundle,
    bundleDigest: here,
    systemPin: system,
  }) as unknown as Examined;

describe("the bundle that must lie here", () => {
  test.each([
    ["marker and system agree", examined(here, { identity: "sqlite:1", bundle: here })],
    ["no system file, and the marker agrees", examined(here, null)],
    ["the system agrees and the marker lags behind", examined(other, { identity: "sqlite:1", bundle: here })],
    ["nothing is pinned yet", examined("none", null)],
  ])("passes where %s", async (_, e) => {
    await expect(refuseOtherBundle(tools, e)).resolves.toBeUndefined();
  });

  test.each([
    [
      "the marker was changed and the system was not",
      examined(here, { identity: "sqlite:1", bundle: other }),
    ],
    ["the system names another identity", examined(here, { identity: "sqlite:2", bundle: here })],
    [
      "the system names a target that has no marker",
      examined("none", { identity: "sqlite:1", bundle: here }),
    ],
    ["the marker pins another bundle", examined(other, null)],
  ])("is refused (30) where %s", async (_, e) => {
    await expect(refuseOtherBundle(tools, e)).rejects.toMatchObject({ code: "ERR_TRUST_BUNDLE" });
  });
});
