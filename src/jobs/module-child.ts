/** Entry point of the child that runs a module: nothing but the call. */
import { host } from "./module-host.js";

await host(process.argv[2] ?? "");
