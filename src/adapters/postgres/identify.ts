/** Who a PostgreSQL database says it is. */
import type { Evidence } from "../../environment/evidence.js";
import type { Identification } from "../../target/target.js";
import type { Address } from "./address.js";
import type { Session } from "./driver.js";
import { readMarker } from "./marker.js";
import type { Cell } from "./values.js";

/** `Target.identify`. Reads only, and only what every role may read. */
export async function identify(session: Session, address: Address): Promise<Identification> {
  const facts = await readFacts(session);
  return {
    marker: await readMarker(session),
    place: { system: facts.system, database: facts.database, oid: facts.oid },
    instance: `${facts.system} ${facts.oid} ${facts.started}`,
    signals: signalsOf(facts, address),
    description: `PostgreSQL ${facts.version}, ${address.shown}, ${facts.isStandby ? "standby" : "primary"}, ${facts.size}`,
  };
}

/** Whether the server is a standby, which takes no writes. */
export async function isStandby(session: Session): Promise<boolean> {
  return (await session.value("SELECT pg_is_in_recovery()")) === "t";
}

/** What time it is by the server's clock. */
export async function serverTime(session: Session): Promise<Date> {
  const seconds = await session.value("SELECT extract(epoch FROM clock_timestamp())");
  return new Date(Number(seconds) * 1000);
}

interface Facts {
  /** Made by initdb; a physical copy of the whole cluster has it too, a dump that was restored elsewhere has not. */
  readonly system: string;
  readonly database: string;
  readonly oid: string;
  /** One more after each promotion. */
  readonly timeline: string;
  readonly isStandby: boolean;
  readonly version: string;
  readonly size: string;
  readonly standbys: number;
  readonly clients: number;
  readonly tls: string | null;
  readonly server: string | null;
  readonly commits: string;
  /** When the server was started, to the microsecond: no two that run have it in common. */
  readonly started: string;
}

async function readFacts(session: Session): Promise<Facts> {
  const [
    system,
    database,
    oid,
    timeline,
    standby,
    version,
    size,
    standbys,
    clients,
    tls,
    server,
    commits,
    started,
  ] =
    (await session.row(
      `SELECT (SELECT system_identifier FROM pg_control_system()), d.datname, d.oid,
         (SELECT timeline_id FROM pg_control_checkpoint()), pg_is_in_recovery(),
         split_part(current_setting('server_version'), ' ', 1), pg_size_pretty(pg_database_size(d.oid)),
         (SELECT count(*) FROM pg_stat_replication),
         (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid()
            AND a.application_name <> 'holdpoint' AND a.backend_type = 'client backend'),
         (SELECT s.version FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid() AND s.ssl),
         host(inet_server_addr()), (SELECT s.xact_commit FROM pg_stat_database s WHERE s.datid = d.oid),
         extract(epoch FROM pg_postmaster_start_time())
       FROM pg_database d WHERE d.datname = current_database()`,
    )) ?? [];
  return {
    system: text(system),
    database: text(database),
    oid: text(oid),
    timeline: text(timeline),
    isStandby: standby === "t",
    version: text(version),
    size: text(size),
    standbys: Number(standbys),
    clients: Number(clients),
    tls: tls ?? null,
    server: server ?? null,
    commits: text(commits),
    started: text(started),
  };
}

function signalsOf(facts: Facts, address: Address): readonly Evidence[] {
  const protection = facts.tls === null ? "none" : `${facts.tls}, ${address.tls}`;
  return [
    roleSignal(facts),
    informs("timeline", facts.timeline),
    informs("replication", facts.standbys === 0 ? "no standby attached" : `${facts.standbys} attached`),
    informs("other clients", String(facts.clients)),
    informs("commits since statistics began", facts.commits),
    informs("data size", facts.size),
    informs("TLS", address.host.startsWith("/") ? "none, a socket of this machine" : protection),
    ...(address.origins.length === 0
      ? []
      : [informs("connection", address.origins.map((o) => `${o.part} from ${o.from}`).join(", "))]),
    ...(facts.server === null ? [] : [informs("server address", facts.server)]),
  ];
}

/** A standby cannot take what is planned on it, so whoever named it meant another server. */
function roleSignal({ isStandby }: Facts): Evidence {
  const base = { source: "role", side: "target", says: null } as const;
  if (!isStandby) return { ...base, strength: "none", state: "informs", detail: "primary" };
  const detail = "a standby, which takes no writes";
  return { ...base, strength: "medium", state: "contradicts", detail, expected: "primary", found: "standby" };
}

function informs(source: string, detail: string): Evidence {
  return { source, side: "target", strength: "none", says: null, state: "informs", detail };
}

function text(cell: Cell | undefined): string {
  return cell ?? "";
}
