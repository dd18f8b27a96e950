/**
 * Who has a place at the server: so many connections in all, and of one certificate. One that has not shown who it is makes
 * room for the next, so that nobody without a certificate can keep others from coming.
 */
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"

/** Both ends of a connection know it by its peer's address. */
const peerOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`

/** Of one server. */
export class Places {
  readonly #most: number
  readonly #open = new Set<Socket>()
  /** Those that have not ended their handshake, in order of their coming. */
  readonly #shaking = new Map<string, Socket>()
  /** By the certificate's fingerprint. */
  readonly #ofOne = new Map<string, number>()

  constructor(most: number) {
    this.#most = most
  }

  /** One that has just come. */
  opened(socket: Socket): void {
    socket.on("error", () => undefined)
    const peer = peerOf(socket)
    if (this.#open.size >= this.#most || this.#shaking.size >= Math.ceil(this.#most / 2)) {
      const [oldest] = this.#shaking.values()
      if (oldest === undefined) return void socket.destroy()
      this.#forget(oldest)
      oldest.destroy()
    }
    this.#open.add(socket)
    this.#shaking.set(peer, socket)
    socket.once("close", () => this.#forget(socket, peer))
  }

  /** Its handshake is done. Those whose certificate has its share already are closed. */
  secured(socket: TLSSocket): void {
    this.#shaking.delete(peerOf(socket))
    // Callers by token share no certificate; what they send tells who they are.
    if (!socket.authorized) return
    const who = socket.getPeerCertificate().fingerprint256
    const count = this.#ofOne.get(who) ?? 0
    if (count >= Math.ceil(this.#most / 2)) return void socket.destroy()
    this.#ofOne.set(who, count + 1)
    socket.once("close", () => {
      const left = (this.#ofOne.get(who) ?? 1) - 1
      if (left === 0) this.#ofOne.delete(who)
      else this.#ofOne.set(who, left)
    })
  }

  closeAll(): void {
    for (const socket of this.#open) socket.destroy()
  }

  #forget(socket: Socket, peer = peerOf(socket)): void {
    this.#open.delete(socket)
    if (this.#shaking.get(peer) === socket) this.#shaking.delete(peer)
  }
}
