/** Who asked for a plan: a pipeline's claims make more people requesters, and never fewer. */
import { describe, expect, test } from "@jest/globals";
import type { Requester } from "../../src/approval/plan-statement.js";
import { askersOf, type CiMapping } from "../../src/approval/requesters.js";

const mapping: CiMapping = {
  accounts: ["bot"],
  people: { "github:octo-lee": "lee", "ravi@shop.example": "ravi" },
};
const by = (person: string | null, claims: Record<string, string> = {}): Requester => ({
  person,
  key: person === null ? null : "SHA256:x",
  how: person === null ? "none" : "ssh-key",
  claims,
});
const people = (...names: readonly string[]): string => JSON.stringify([...names].sort());

describe("who asked", () => {
  test.each([
    ["a person at a laptop asks alone", by("dana"), [], 0],
    ["an unsigned plan may be anybody's", by(null), [], 1],
    [
      "actor and author widen",
      by("bot", { ci: "yes", "ci-people": people("github:octo-lee", "ravi@shop.example") }),
      ["lee", "ravi"],
      0,
    ],
    [
      "a stranger costs one more",
      by("bot", { ci: "yes", "ci-people": people("github:octo-lee", "eve@x.example") }),
      ["lee"],
      1,
    ],
    [
      "what CI does not tell costs one more",
      by("bot", { ci: "yes", "ci-people": people("github:octo-lee"), "ci-missing": "the commits" }),
      ["lee"],
      1,
    ],
    ["nobody named costs one more", by("bot", { ci: "yes" }), [], 1],
    ["a person on a machine that only says CI asks alone", by("dana", { ci: "yes" }), [], 0],
    ["a list that cannot be read costs one more", by("bot", { ci: "yes", "ci-people": "[ 'x" }), [], 1],
    ["a pipeline's own key that hides its CI costs one more", by("bot"), [], 1],
    [
      "CI under a person's own key widens too",
      by("dana", { ci: "yes", "ci-people": people("github:octo-lee") }),
      ["lee"],
      0,
    ],
    [
      "a name of the prototype is a stranger",
      by("bot", { ci: "yes", "ci-people": people("constructor") }),
      [],
      1,
    ],
  ])("%s", (_, requester, widened, unknown) => {
    const asked = askersOf(requester, mapping);
    expect({ widened: asked.widened, unknown: asked.unknown.length }).toEqual({ widened, unknown });
  });

  test("without a mapping everybody whom CI names is a stranger", () => {
    const asked = askersOf(by("dana", { ci: "yes", "ci-people": people("github:octo-lee") }), null);
    expect(asked).toEqual({ widened: [], unknown: ["nobody on the list is github:octo-lee"] });
  });
});
