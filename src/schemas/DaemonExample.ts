/** A configuration file with every field, explained: made from the schema and the defaults, so that it cannot grow old. */
import { Schema, SchemaAST } from "effect"
import { DaemonConfig } from "./DaemonConfig.ts"
import { fileOf } from "./DaemonWorker.ts"
import { standardPool } from "./PoolConfig.ts"
import { standardConfig } from "./WorkerConfig.ts"

const [standard] = standardConfig.classes

/** The defaults, each said. */
const defaults: DaemonConfig = {
  ...fileOf({
    ...standardConfig,
    classes: [{ ...standard, pool: { ...standardPool, minimum: 2, maximum: 6, refillPauseMs: 5 } }]
  }),
  log: { format: "auto", level: "Info" }
}

/** Fields that have no default, as somebody might set them. They stand in the example as comments. */
const settable: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["stateDirectory", "/var/lib/stoker"],
  ["ownerSlots", 1],
  ["budget.memory", "8G"],
  ["budget.cpus", 8],
  ["budget.sandboxes", 100],
  ["cron", [{
    name: "nightly",
    cron: "30 2 * * *",
    timeZone: "Europe/Berlin",
    function: "command",
    args: { command: "echo good night" },
    class: standardConfig.defaultClass,
    limits: { wall: "10s" },
    owner: "cron",
    missed: "10m"
  }]],
  ["classes.networkSetup", { subnet: "198.19.0.0/16", nameservers: ["9.9.9.9"] }],
  ["classes.runtime", "runsc"],
  ["classes.root", { image: "debian:12" }],
  ["classes.images", { allow: ["registry.example/team/"], digests: true }],
  ["classes.machine", {
    image: "default",
    vcpus: 1,
    accelerator: "kvm",
    snapshot: true,
    wire: "tcp",
    agent: "stoker",
    diskRates: { bytesPerSec: 10_485_760, burstBytes: 1_048_576, opsPerSec: 1000, burstOps: 100 },
    networkRates: { bytesPerSec: 1_048_576 }
  }],
  ["classes.cluster", {
    namespace: "jobs",
    kubeconfig: "/etc/stoker/kubeconfig",
    context: "prod",
    serviceAccount: "job",
    storeSecret: "object-store",
    secrets: ["registry", "licences"],
    unschedulable: "5m",
    runAsUser: 65532
  }],
  ["classes.cpuset", "0-3"],
  ["classes.ioDevices", ["/dev/vda"]],
  ["classes.functions", true],
  ...["classes.ceiling", "classes.defaults"].flatMap((at): ReadonlyArray<readonly [string, unknown]> => [
    [`${at}.cpuWeight`, 100],
    [`${at}.memoryHigh`, "200M"],
    [`${at}.swap`, "64M"],
    [`${at}.oomGroup`, true],
    [`${at}.ioWeight`, 100],
    [`${at}.ioRead`, "50M"],
    [`${at}.ioWrite`, "20M"],
    [`${at}.ioReads`, 1000],
    [`${at}.ioWrites`, 500]
  ]),
  ["classes.pool.charge", { memory: "256M", cpus: 0.5 }],
  ["functions", ["my-functions.ts"]],
  ["mstc", { class: standardConfig.defaultClass, listen: "127.0.0.1:8080" }],
  ["objectStore", {
    endpoint: "https://store.example:9000",
    region: "us-east-1",
    pathStyle: true,
    accessKeyFile: "/etc/stoker/store-access-key",
    secretKeyFile: "/etc/stoker/store-secret-key",
    timeout: "30s",
    patience: "1m"
  }],
  ["amqp", { urlFile: "/etc/stoker/amqp-url" }],
  ["journal", { urlEnv: "STOKER_JOURNAL" }],
  ["http", { listen: "127.0.0.1:9464" }],
  ["api", {
    grpc: "127.0.0.1:7077",
    http: "127.0.0.1:7078",
    ca: "certs/ca.crt",
    cert: "certs/server.crt",
    key: "certs/server.key",
    identity: "CN",
    roles: "roles.json",
    tokens: "tokens.json",
    webhooks: { allow: ["https://hooks.example.com/"], secretEnv: "STOKER_WEBHOOK_SECRET" }
  }]
])

const isObject = Schema.is(Schema.Record(Schema.String, Schema.Unknown))

/** The fields of a struct, or of an array's structs. */
const propertiesOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.PropertySignature> => {
  if (SchemaAST.isArrays(ast)) return ast.elements[0] === undefined ? [] : propertiesOf(ast.elements[0])
  return SchemaAST.isObjects(ast) ? ast.propertySignatures : []
}

const described = ({ type }: SchemaAST.PropertySignature): string => {
  const text = type.context?.annotations?.["description"]
  return typeof text === "string" ? text : ""
}

interface Item {
  readonly name: string
  readonly about: string
  readonly value: ReadonlyArray<string>
  readonly isComment: boolean
}

const indent = (lines: ReadonlyArray<string>) => lines.map((line) => `  ${line}`)

const oneLine = (value: unknown) => (JSON.stringify(value, null, 1) ?? "").replaceAll(/\n\s*/g, " ")

const objectLines = (ast: SchemaAST.AST, value: unknown, path: string): ReadonlyArray<string> => {
  const items = propertiesOf(ast).flatMap((property): ReadonlyArray<Item> => {
    const name = String(property.name)
    const at = path === "" ? name : `${path}.${name}`
    const known: unknown = isObject(value) ? value[name] : undefined
    return [{
      name,
      about: described(property),
      value: known === undefined ? [oneLine(settable.get(at))] : valueLines(property.type, known, at),
      isComment: known === undefined
    }]
  })
  // Comments first: what follows them keeps the commas right, with them or without.
  const sorted = [...items.filter(({ isComment }) => isComment), ...items.filter(({ isComment }) => !isComment)]
  const lines = sorted.flatMap(({ about, isComment, name, value: [head = "", ...tail] }, index) => {
    const text = [`"${name}": ${head}`, ...tail]
    const last = text.length - 1
    const whole = text.map((line, at) => at === last && index < sorted.length - 1 ? `${line},` : line)
    return [`// ${about}`, ...(isComment ? whole.map((line) => `// ${line}`) : whole)]
  })
  return ["{", ...indent(lines), "}"]
}

const valueLines = (ast: SchemaAST.AST, value: unknown, path: string): ReadonlyArray<string> => {
  if (Array.isArray(value)) {
    const items = value.flatMap((item: unknown) => objectLines(ast, item, path))
    return ["[", ...indent(items), "]"]
  }
  return isObject(value) && propertiesOf(ast).length > 0 ? objectLines(ast, value, path) : [JSON.stringify(value)]
}

/** The example's text, which is a configuration file as it stands: that of a worker without one. */
export const example: string = [
  "// Stoker worker. Times are written as \"500ms\", \"30s\", \"2h\" or \"7d\", sizes as \"64K\", \"256M\" or \"1G\".",
  "// Everything may be left out; what is written here are the defaults.",
  ...objectLines(DaemonConfig.ast, Schema.encodeSync(DaemonConfig)(defaults), "")
].join("\n")
