/** `doctor`: is this project set up so that holdpoint can keep its promises here? */
import { HoldpointError, UsageError } from "../../base/errors.js";
import { doctor, type DoctorFinding, unreadableProject } from "../../operations/doctor.js";
import { renderDoctor } from "../../render/doctor.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

export const registerDoctor: Register = (program, run) => {
  const command = program
    .command("doctor")
    .option("--on <target>", "look at this target only, beside the project")
    .action((flags: { readonly on?: string }) => run("doctor", (cx) => examine(cx, flags.on ?? null)));
  describeCommand(command, {
    group: "Set up",
    summary: "check the set-up: keys, people, policies, targets, ways around",
    description:
      "Looks and changes nothing. Each finding is OK, LOOK (judge it) or STOP (mend it); ends with 2 when there is a STOP.",
    examples: [
      { line: "holdpoint doctor", what: "everything" },
      { line: "holdpoint doctor --on elb-prod", what: "the project and one target" },
    ],
    exits: [],
  });
};

async function examine(cx: Context, on: string | null): Promise<Outcome> {
  const findings = await findingsOf(cx, on);
  const stops = findings.filter((f) => f.level === "stop");
  const result = {
    ok: findings.filter((f) => f.level === "ok").length,
    look: findings.filter((f) => f.level === "look").length,
    stop: stops.length,
    findings,
  };
  const text = cx.screen(renderDoctor, findings);
  const [first] = stops;
  if (first === undefined) return { result, text };
  return {
    result,
    text,
    error: new UsageError({
      code: "ERR_SETUP_UNSAFE",
      message: `doctor found ${stops.length === 1 ? "1 thing" : `${stops.length} things`} to mend first`,
      why: `${first.target === null ? "" : `${first.target}: `}${first.what}`,
    }),
  };
}

/** A project that cannot be read is a finding too, and the first to mend. */
async function findingsOf(cx: Context, on: string | null): Promise<readonly DoctorFinding[]> {
  let tools: Awaited<ReturnType<Context["tools"]>>;
  try {
    tools = await cx.tools();
  } catch (e) {
    if (!(e instanceof HoldpointError) || e.code === "ERR_INTERNAL") throw e;
    return [unreadableProject(e)];
  }
  return doctor(tools, tools.probe, on);
}
