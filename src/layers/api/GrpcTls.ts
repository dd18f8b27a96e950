/** gRPC's credentials out of the same material as HTTP's. For those who have loaded grpc-js anyhow. */
import { type ChannelCredentials, credentials, ServerCredentials } from "@grpc/grpc-js"
import { Effect, type Scope } from "effect"
import { createSecureContext } from "node:tls"
import { follow, type Tls } from "./Tls.ts"
import { clientTls, secureContext, serverTls, type TlsMaterial } from "./TlsMaterial.ts"

/** grpc-js's own `createSsl` takes no least version of TLS, and no new certificates. */
class MutualTls extends ServerCredentials {
  constructor(material: TlsMaterial) {
    super(serverTls(material), secureContext(material))
  }

  reload(material: TlsMaterial): void {
    this.updateSecureContextOptions(secureContext(material))
  }

  override _equals(other: ServerCredentials): boolean {
    return other === this
  }
}

/** A server's, kept up to date while the scope lives; calls that are open go on. */
export const serverCredentials = Effect.fnUntraced(function*(
  tls: Tls["Service"]
): Effect.fn.Return<ServerCredentials, never, Scope.Scope> {
  const made = new MutualTls(yield* tls.material)
  yield* follow(tls, (material) => made.reload(material))
  return made
})

/** A client's. A server's name must be a DNS name or the target's, as its certificate says. */
export const clientCredentials = (material: TlsMaterial): ChannelCredentials =>
  credentials.createFromSecureContext(createSecureContext(clientTls(material)))
