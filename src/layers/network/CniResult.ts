/** What a CNI plugin answers, in any version of the specification up to 1.0.0. */
import { Schema } from "effect"

const Json = Schema.Record(Schema.String, Schema.Unknown)

const Dns = Schema.Struct({ nameservers: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))) })

const Ip = Schema.Struct({
  address: Schema.String,
  interface: Schema.optionalKey(Schema.Int),
  gateway: Schema.optionalKey(Schema.String)
})

const Routes = Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({ dst: Schema.String }))))

const Interface = Schema.Struct({ name: Schema.String, sandbox: Schema.optionalKey(Schema.String) })

/** `ip4` and `ip6` until 0.2.0, `ips` from 0.3.0 on. */
const Result = Schema.StructWithRest(
  Schema.Struct({
    ips: Schema.optionalKey(Schema.NullOr(Schema.Array(Ip))),
    interfaces: Schema.optionalKey(Schema.NullOr(Schema.Array(Interface))),
    routes: Routes,
    ip4: Schema.optionalKey(
      Schema.Struct({ ip: Schema.String, gateway: Schema.optionalKey(Schema.String), routes: Routes })
    ),
    ip6: Schema.optionalKey(Schema.Struct({ ip: Schema.String })),
    dns: Schema.optionalKey(Dns)
  }),
  [Json]
)
export type CniResult = typeof Result.Type

export const decodeResult = Schema.decodeUnknownEffect(Schema.fromJsonString(Result))

/** `{ code, msg, details }`, with which a plugin ends that could not do it. */
export const decodeFailure = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Struct({
  code: Schema.Int,
  msg: Schema.String,
  details: Schema.optionalKey(Schema.String)
})))

/** The sandbox's addresses with their prefixes: those of interfaces in it, or of none in particular. */
export const addressesOf = ({ interfaces, ip4, ip6, ips }: CniResult): ReadonlyArray<string> => [
  ...(ips ?? []).flatMap(({ address, interface: index }) => {
    const owner = index === undefined ? undefined : interfaces?.[index]
    return owner !== undefined && (owner.sandbox ?? "") === "" ? [] : [address]
  }),
  ...(ip4 === undefined ? [] : [ip4.ip]),
  ...(ip6 === undefined ? [] : [ip6.ip])
]

export const nameserversIn = ({ dns }: CniResult): ReadonlyArray<string> => dns?.nameservers ?? []

/**
 * The way out for IPv4 that the result names and the plugins have not made a default route of: ptp without `routes` leaves
 * that to a machine's own configuration.
 */
export const missingGatewayOf = ({ ip4, ips, routes }: CniResult): string | undefined =>
  [...(routes ?? []), ...(ip4?.routes ?? [])].some(({ dst }) => dst === "0.0.0.0/0")
    ? undefined
    : [...(ips ?? []), ...(ip4 === undefined ? [] : [ip4])]
      .flatMap(({ gateway }) => gateway !== undefined && !gateway.includes(":") ? [gateway] : [])[0]
