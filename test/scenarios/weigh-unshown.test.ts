/**
 * A signature that is made elsewhere is weighed as strictly as one that is made here: the same decision, whether or not the
 * rows are kept for it; and rows that nobody kept cannot be asked for.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "@jest/globals";
import { weigh, weighUnshown, type Weighed } from "../../src/operations/consent/review.js";
import { makeProject, type TestProject } from "../support/project.js";
import { withTools } from "../support/wired.js";

const opened: TestProject[] = [];
afterEach(() => {
  for (const project of opened.splice(0)) project.close();
});

const POLICY = `format: holdpoint-policy/1
name: rows
environments: [production]
assertions:
  - id: an-order-stays
    tables: [orders]
    sql: select before_id from orders where op = 'delete' and before_id = 399
    message: order 399 is kept
`;

/** A plan of this SQL in a project whose files were changed before it was pinned. */
function planned(
  sql: string,
  change: (project: TestProject) => void = () => undefined,
): [TestProject, string] {
  const project = makeProject({ pin: false });
  opened.push(project);
  change(project);
  expect(project.json(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).error).toBeNull();
  return [project, project.plan(sql)];
}

interface Seen {
  readonly decision: unknown;
  readonly isKept: boolean;
}

/** What was decided, and whether the rows were kept for it. */
async function weighed(project: TestProject, plan: string, by: typeof weigh): Promise<Seen> {
  const look = async ({ decision, plan: { changes } }: Weighed): Promise<Seen> => {
    try {
      return { decision, isKept: [...changes.changes("orders")].length > 0 };
    } catch (e) {
      expect(e).toMatchObject({ code: "ERR_INTERNAL" });
      return { decision, isKept: false };
    }
  };
  return withTools(project.dir, (tools) => by(tools, plan, look));
}

const unchanged = (): void => undefined;

describe("decided alike", () => {
  test.each([
    ["deletes alone, and no rule that asks for rows", "DELETE FROM orders WHERE id <= 3", unchanged, false],
    ["a cell that changes", "UPDATE orders SET status = 'x' WHERE id <= 3", unchanged, true],
    [
      "an assertion about the rows",
      "DELETE FROM orders WHERE id <= 3",
      (p: TestProject): void => writeFileSync(p.path("policies/rows.yaml"), POLICY),
      true,
    ],
    [
      "a tenant's column",
      "DELETE FROM orders WHERE id <= 3",
      (p: TestProject): void => {
        const text = readFileSync(p.path("holdpoint.yaml"), "utf8");
        const told = text.replace(
          "environment: production",
          "tenant: [orders.status]\n    environment: production",
        );
        writeFileSync(p.path("holdpoint.yaml"), told);
      },
      true,
    ],
  ])("%s", async (_, sql, change, kept) => {
    const [project, plan] = planned(sql, change);
    const [shown, unshown] = [
      await weighed(project, plan, weigh),
      await weighed(project, plan, weighUnshown),
    ];
    expect(shown.isKept).toBe(true);
    expect(unshown).toEqual({ decision: shown.decision, isKept: kept });
  });
});
