/**
 * One run at a time on a target, across the transactions of its batches.
 *
 * A lock row would outlive a killed run, a pid file would be believed after the pid is used again, and SQLite has
 * no lock that lasts longer than a transaction. So the lock is the exclusive transaction of a second, empty SQLite
 * file beside the target (`<target>-holdpoint-run`, beside it because whoever writes the target reaches it there):
 * the system gives it back when the process ends, however it ends. A run removes the file when it is done; a killed
 * one leaves an empty file that locks nothing.
 */
import { rmSync } from "node:fs";
import { asFarAsPossible, codeOf } from "../../base/errors.js";
import { asTargetError, busy, Connection, isBusy, type Driver } from "./driver.js";

/** The lock's file. */
export function runLockPath(path: string): string {
  return `${path}-holdpoint-run`;
}

/** A lock that is held until released. */
export interface RunLock {
  readonly release: () => void;
}

const ATTEMPTS = 10;

/** Takes the lock at once or not at all. @throws TargetError ERR_TARGET_BUSY while another run has the target. */
export function takeRunLock(driver: Driver, path: string): RunLock {
  const file = runLockPath(path);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const connection = lockFile(driver, file, path);
    if (isLocked(driver, file)) {
      return {
        release: () => {
          // Removed while the lock is still held: nobody else can have it and see the file go.
          asFarAsPossible(() => rmSync(file, { force: true }));
          connection.close();
        },
      };
    }
    connection.close();
  }
  throw busy(path, "the lock of the runs there changes hands all the time");
}

function lockFile(driver: Driver, file: string, path: string): Connection {
  let connection: Connection | undefined;
  try {
    connection = new Connection(new driver(file, { timeout: 0 }), file);
    connection.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return connection;
  } catch (e) {
    connection?.close();
    throw isBusy(e) ? busy(path, "another run of holdpoint has the target", e) : asTargetError(e, path);
  }
}

/**
 * Whether the file of that name is the one we locked: the run before may have removed it between our opening and
 * our locking it, and then a third one may lock another file of the same name.
 */
function isLocked(driver: Driver, file: string): boolean {
  let probe: Connection | undefined;
  try {
    probe = new Connection(new driver(file, { timeout: 0, fileMustExist: true }), file);
    probe.exec("BEGIN EXCLUSIVE");
    return false;
  } catch (e) {
    if (isBusy(e)) return true;
    if (codeOf(e) === "SQLITE_CANTOPEN") return false;
    throw e;
  } finally {
    probe?.close();
  }
}
