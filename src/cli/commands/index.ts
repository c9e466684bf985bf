/** Every command, in the order in which help lists them. */
import type { Register } from "../command.js";
import { registerApply } from "./apply.js";
import { registerApprove } from "./approve.js";
import { registerEnv } from "./env.js";
import { registerExplain } from "./explain.js";
import { registerInit } from "./init.js";
import { registerLog } from "./log.js";
import { registerPlan } from "./plan.js";
import { registerReject } from "./reject.js";
import { registerShow } from "./show.js";
import { registerStatus } from "./status.js";
import { registerTrust } from "./trust.js";
import { registerUndo } from "./undo.js";

/** Adds each command to the program. */
export const COMMANDS: readonly Register[] = [
  registerPlan,
  registerApprove,
  registerReject,
  registerApply,
  registerUndo,
  registerShow,
  registerStatus,
  registerLog,
  registerEnv,
  registerTrust,
  registerExplain,
  registerInit,
];
