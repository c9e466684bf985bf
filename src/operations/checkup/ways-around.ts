/** Ways to the target that lie open beside holdpoint. */
import { type Examined } from "../judging/examine.js";
import type { Toolbox } from "../toolbox.js";
import { type DoctorFinding, type MachineProbe, look, say, stop } from "./finding.js";

/** What is kept to take changes back should outlive the target. */
export function storeFindings(tools: Toolbox, probe: MachineProbe, examined: Examined): DoctorFinding[] {
  const store = probe.file(tools.project.config.store);
  const beside = examined.target
    .ownPaths()
    .filter((p) => store !== null && probe.file(p)?.device === store.device);
  if (beside.length === 0) return [];
  return [
    look(
      "store",
      "what is kept to take changes back lies on the same disk as the target: one failure takes both",
      say("Put store: on another disk, or copy it elsewhere regularly."),
    ),
  ];
}

/** Whoever holds the credential needs no plan: said as it is, and worst where production can be reached by accident. */
export function waysAround(probe: MachineProbe, examined: Examined): DoctorFinding[] {
  const { target, verdict, origins } = examined;
  if (verdict.guardedAs !== "production") return [];
  const own = new Set(origins.flatMap((o) => /^\$\{(.*)\}$/.exec(o.part)?.[1] ?? []));
  const named = probe.variablesNaming(target.name);
  const others = named.filter((n) => !own.has(n));
  const found: DoctorFinding[] = [];
  if (others.length > 0)
    found.push(
      stop(
        "way-around",
        `${others.join(", ")} ${others.length === 1 ? "names" : "name"} this target: any tool that reads ${others.length === 1 ? "it" : "them"} writes here without a plan`,
        [{ actor: "anyone", argv: ["unset", ...others] }],
      ),
    );
  found.push(...filesAround(probe, target.name));
  const exported = [...own].filter((n) => named.includes(n));
  if (exported.length > 0)
    found.push(
      look(
        "way-around",
        `${exported.join(", ")} is set in this shell, and every program started here inherits it`,
        say("Set it for holdpoint alone, by a wrapper or your secret store."),
      ),
    );
  const writable = target.ownPaths().filter((p) => probe.file(p)?.writable === true);
  const [file] = writable;
  if (file !== undefined) found.push(fileWayAround(probe, file));
  return found;
}

/** A file that every tool of the project loads is as open as a variable; one for clients of PostgreSQL serves holdpoint too. */
function filesAround(probe: MachineProbe, target: string): readonly DoctorFinding[] {
  const files = probe.credentialFiles(target);
  const dotenv = files.filter((f) => f.kind === "dotenv").map((f) => f.where);
  const clients = files.filter((f) => f.kind !== "dotenv").map((f) => f.where);
  return [
    ...(dotenv.length === 0
      ? []
      : [
          stop(
            "way-around",
            `${dotenv.join(", ")} ${dotenv.length === 1 ? "names" : "name"} this target: any tool that loads the file writes here without a plan`,
            say("Take the line out; give holdpoint the address by a wrapper or your secret store."),
          ),
        ]),
    ...(clients.length === 0
      ? []
      : [
          look(
            "way-around",
            `${clients.join(", ")} lets every client of PostgreSQL in here, and holdpoint by the same login`,
            say(
              "Keep this login for holdpoint's own user, or let it read only and give the one that writes to apply alone.",
            ),
          ),
        ]),
  ];
}

function fileWayAround(probe: MachineProbe, file: string): DoctorFinding {
  const mode = probe.file(file)?.mode ?? 0;
  if ((mode & 0o002) !== 0)
    return stop("way-around", `everybody on this machine can write ${file} (mode 0${mode.toString(8)})`, [
      { actor: "dba", argv: ["chmod", "o-w", file] },
    ]);
  return look(
    "way-around",
    `this login can write ${file} without holdpoint (mode 0${mode.toString(8)})`,
    say(
      "Give the file to a login of its own, and apply under that one; docs/threat-model.md says what this stops.",
    ),
  );
}
