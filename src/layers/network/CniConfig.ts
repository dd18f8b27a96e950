/** CNI network configurations (specification 1.0.0 and before): Stoker's own, and those of an operator's directories. */
import { Effect, Schema } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { codeOf, textOf } from "../host/Errno.ts"
import { NetworkError } from "./Network.ts"

const Json = Schema.Record(Schema.String, Schema.Unknown)

const version = Schema.Literals(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])

/** One plugin's part; what we do not know is the plugin's. */
export const PluginConfig = Schema.StructWithRest(
  Schema.Struct({
    type: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, { expected: "a plugin's file name" }))
  }),
  [Json]
)
export type PluginConfig = typeof PluginConfig.Type

/** A chain of plugins. */
export const NetworkList = Schema.Struct({
  cniVersion: version,
  name: Schema.String.check(
    Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, { expected: "letters, digits, '_', '.' and '-'" })
  ),
  plugins: Schema.NonEmptyArray(PluginConfig),
  /** Ours: `masquerade` lets its subnet out with the host's address, by one rule instead of one for each sandbox. */
  stoker: Schema.optionalKey(Schema.Struct({ masquerade: Schema.optionalKey(Schema.Boolean) }))
})
export type NetworkList = typeof NetworkList.Type

/** The plugins of a list, with those they call for addresses. */
export const pluginsOf = ({ plugins }: NetworkList): ReadonlyArray<string> => [
  ...new Set(plugins.flatMap(({ ipam, type }) => {
    const inner: unknown = typeof ipam === "object" && ipam !== null ? Reflect.get(ipam, "type") : undefined
    return typeof inner === "string" ? [type, inner] : [type]
  }))
]

/** Makes a tap and redirects the interface to it, which leaves no place for rules between them. */
const TAP_PLUGIN = "tc-redirect-tap"

/** The same network for a machine: our own tap stands in for that plugin's, installed or not. */
export const withoutTap = Effect.fnUntraced(function*(list: NetworkList) {
  const [first, ...rest] = list.plugins.filter(({ type }) => type !== TAP_PLUGIN)
  if (first === undefined) {
    return yield* new NetworkError({
      reason: `CNI network ${list.name} has only ${TAP_PLUGIN}`,
      remedy: "Put a plugin before it that connects the machine, such as ptp."
    })
  }
  if (rest.length + 1 === list.plugins.length) return list
  yield* Effect.logDebug(`CNI network ${list.name}: ${TAP_PLUGIN} is left out, Stoker makes the tap itself`)
  const plugins: NetworkList["plugins"] = [first, ...rest]
  return { ...list, plugins }
})

/** `.conf` and `.json` files hold one plugin, whose name is the network's. */
const Single = Schema.StructWithRest(
  Schema.Struct({ cniVersion: version, name: Schema.String, type: Schema.String }),
  [Json]
)

/** What the plugins of Debian 12 speak best. */
const CNI_VERSION = "1.0.0"

/** Of the built-in network. RFC 2544 keeps these addresses for measurements: hardly anybody has routes to them. */
export const USUAL_SUBNET = "198.19.0.0/16"

/** Of the built-in network. */
export const BUILT_IN = "stoker"

/** A link from the host to each sandbox, addresses from one subnet. Sandboxes see nothing of each other. */
export const builtIn = (options: { readonly subnet: string; readonly dataDir: string }): NetworkList => ({
  cniVersion: CNI_VERSION,
  // Leases of different subnets lie apart.
  name: options.subnet === USUAL_SUBNET ? BUILT_IN : `${BUILT_IN}-${options.subnet.replaceAll(/[^0-9]/g, "-")}`,
  plugins: [{
    type: "ptp",
    ipMasq: false,
    ipam: {
      type: "host-local",
      dataDir: options.dataDir,
      ranges: [[{ subnet: options.subnet }]],
      routes: [{ dst: "0.0.0.0/0" }]
    }
  }],
  stoker: { masquerade: true }
})

const decodeList = Schema.decodeUnknownEffect(NetworkList)
const decodeSingle = Schema.decodeUnknownEffect(Single)
const nameOf = Schema.decodeUnknownEffect(Schema.Struct({ name: Schema.String }))

const invalid = (file: string, cause: unknown) =>
  new NetworkError({
    reason: `${file} is no CNI configuration: ${textOf(cause)}`,
    remedy: "Correct it; Stoker knows the CNI specification up to 1.0.0.",
    cause
  })

const filesIn = (folder: string): ReadonlyArray<string> => {
  try {
    return readdirSync(folder).filter((name) => /\.(?:conflist|conf|json)$/.test(name)).toSorted().map((name) =>
      join(folder, name)
    )
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return []
    throw cause
  }
}

const read = (file: string) =>
  Effect.try({
    try: (): unknown => JSON.parse(readFileSync(file, "utf8")),
    catch: (cause) => invalid(file, cause)
  })

const listOf = (file: string, value: unknown): Effect.Effect<NetworkList, NetworkError> =>
  (file.endsWith(".conflist")
    ? decodeList(value)
    : Effect.map(decodeSingle(value), ({ cniVersion, name, ...plugin }): NetworkList => ({
      cniVersion,
      name,
      plugins: [plugin]
    }))).pipe(Effect.mapError((cause) => invalid(file, cause)))

/** The first network of that name in these folders, files in the order of their names. */
export const findNetwork = Effect.fn("CniConfig.findNetwork")(
  function*(folders: ReadonlyArray<string>, wanted: string) {
    const files = yield* Effect.try({
      try: () => folders.flatMap(filesIn),
      catch: (cause) =>
        new NetworkError({ reason: textOf(cause), remedy: "May the worker read that directory?", cause })
    })
    for (const file of files) {
      // A file that is broken or somebody else's is not ours to judge, unless it is the one that was asked for.
      const value = yield* Effect.result(read(file))
      if (value._tag === "Failure") continue
      const named = yield* Effect.result(nameOf(value.success))
      if (named._tag === "Success" && named.success.name === wanted) return yield* listOf(file, value.success)
    }
    return yield* new NetworkError({
      reason: `no CNI network ${wanted} in ${folders.join(", ")}`,
      remedy: "Put its .conflist there, or leave the name out: Stoker has a network of its own."
    })
  }
)
