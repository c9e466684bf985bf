/** Who a PostgreSQL database says it is. */
import type { Evidence } from "../../environment/evidence.js";
import type { Identification } from "../../target/target.js";
import type { Address } from "./address.js";
import type { PeerCertificate } from "node:tls";
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
    signals: [...signalsOf(facts, address), ...certificateSignal(session.certificate, address)],
    description: `PostgreSQL ${facts.version}, ${address.shown}, ${facts.isStandby ? "standby" : "primary"}, ${facts.size}`,
  };
}

/**
 * The timeline on which the server writes now. The control file of one that was just promoted still names the timeline
 * before, until its first checkpoint is done; a standby writes nothing, and tells what it last read.
 */
export const TIMELINE = `CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END`;

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
  /** Row versions written since statistics began. */
  readonly writes: number;
  /** Minutes since then; null where the server does not say. */
  readonly minutes: number | null;
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
    writes,
    minutes,
    started,
  ] =
    (await session.row(
      `SELECT (SELECT system_identifier FROM pg_control_system()), d.datname, d.oid,
         ${TIMELINE}, pg_is_in_recovery(),
         split_part(current_setting('server_version'), ' ', 1), pg_size_pretty(pg_database_size(d.oid)),
         (SELECT count(*) FROM pg_stat_replication),
         (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid()
            AND a.application_name <> 'holdpoint' AND a.backend_type = 'client backend'),
         (SELECT s.version FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid() AND s.ssl),
         host(inet_server_addr()),
         (SELECT s.tup_inserted + s.tup_updated + s.tup_deleted FROM pg_stat_database s WHERE s.datid = d.oid),
         (SELECT extract(epoch FROM now() - s.stats_reset) / 60 FROM pg_stat_database s WHERE s.datid = d.oid),
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
    writes: Number(writes ?? 0),
    minutes: minutes === null || minutes === undefined ? null : Number(minutes),
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
    informs("write traffic", trafficOf(facts)),
    informs("data size", facts.size),
    informs("TLS", address.host.startsWith("/") ? "none, a socket of this machine" : protection),
    ...(address.origins.length === 0
      ? []
      : [informs("connection", address.origins.map((o) => `${o.part} from ${o.from}`).join(", "))]),
    ...(facts.server === null ? [] : [informs("server address", facts.server)]),
  ];
}

const CHECKED: Readonly<Record<Address["tls"], string>> = {
  disable: "nothing checked",
  prefer: "nothing checked",
  require: "nothing checked",
  "verify-ca": "issuer checked, name not",
  "verify-full": "issuer and name checked",
};

/** The names that the server's certificate stands for, as `subjectAltName` lists them (RFC 6125), else its common name. */
function certificateSignal(
  certificate: PeerCertificate | null,
  { tls }: Pick<Address, "tls">,
): readonly Evidence[] {
  if (certificate === null) return [];
  const names = certificate.subjectaltname ?? certificate.subject.CN;
  const issuer = certificate.issuer.CN ?? certificate.issuer.O;
  const until = new Date(certificate.valid_to).toISOString().slice(0, 10);
  return [
    informs(
      "TLS certificate",
      `${String(names)}, issued by ${String(issuer)}, until ${until}; ${CHECKED[tls]}`,
    ),
  ];
}

/** A standby cannot take what is planned on it, so whoever named it meant another server. */
function roleSignal({ isStandby }: Facts): Evidence {
  const base = { source: "role", side: "target", says: null } as const;
  if (!isStandby) return { ...base, strength: "none", state: "informs", detail: "primary" };
  const detail = "a standby, which takes no writes";
  return { ...base, strength: "medium", state: "contradicts", detail, expected: "primary", found: "standby" };
}

/** A rate where the server knows since when it counts. */
function trafficOf({ writes, minutes }: Facts): string {
  if (minutes === null || minutes <= 0) return `${writes} row writes since statistics began`;
  return `about ${Math.round(writes / minutes)} row writes a minute`;
}

function informs(source: string, detail: string): Evidence {
  return { source, side: "target", strength: "none", says: null, state: "informs", detail };
}

function text(cell: Cell | undefined): string {
  return cell ?? "";
}

/** The running server in {@link Identification.instance}: databases of one server differ in the second word alone. */
export function serverOf(instance: string | undefined): string | undefined {
  const [system, , started] = instance?.split(" ") ?? [];
  return system === undefined || started === undefined ? undefined : `${system} ${started}`;
}
