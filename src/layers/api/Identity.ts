/** Who a caller is, by the certificate that TLS has verified. Nothing a caller says in headers or messages counts. */
import { Option, Result, Schema } from "effect"
import type { Caller } from "../../schemas/Access.ts"
import { Owner } from "../../schemas/Ids.ts"
import type { Unauthenticated } from "./Fault.ts"
import { clientAuth } from "./TlsMaterial.ts"

/** Where in the subject the name stands: in the common name, or in the locality, as workernator had it. */
export type IdentityField = "CN" | "L"

/** A value is an array where a name has two such fields. What `getPeerCertificate()` and gRPC's `sslPeerCertificate` give, as far as we look. */
export interface ShownCertificate {
  readonly subject?: Partial<Readonly<Record<IdentityField, string | ReadonlyArray<string>>>>
  readonly ext_key_usage?: ReadonlyArray<string>
}

const asOwner = Schema.decodeUnknownOption(Owner)

const stranger = (reason: string, remedy: string): Result.Result<never, Unauthenticated> =>
  Result.fail({ _tag: "Unauthenticated", reason, remedy })

const anew = "Ask the operator for a certificate: stoker certs issue client NAME"

/** The caller, by a certificate that TLS has found good. `from`: HOST:PORT. */
export const callerOf = (
  certificate: ShownCertificate | null | undefined,
  field: IdentityField,
  from?: string
): Result.Result<Caller, Unauthenticated> => {
  // Without one, Node gives an empty object.
  if (certificate?.subject === undefined) return stranger("no client certificate was shown", anew)
  // OpenSSL lets pass those that name no purpose at all: a server's may be among them.
  if (certificate.ext_key_usage?.includes(clientAuth) !== true) {
    return stranger("the certificate is not one for a client", anew)
  }
  const value = certificate.subject[field]
  if (value === undefined) return stranger(`the certificate's subject has no ${field}`, anew)
  if (typeof value !== "string") return stranger(`the certificate's subject has more than one ${field}`, anew)
  const name = asOwner(value)
  return Option.isSome(name)
    ? Result.succeed({ name: name.value, via: "certificate", ...(from === undefined ? {} : { from }) })
    : stranger(`the ${field} of the certificate's subject cannot be the name of an owner`, anew)
}
