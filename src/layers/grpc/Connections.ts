/**
 * Who is connected: how many there may be in all and of one caller, how long a handshake takes at most, and by whose
 * certificate each stands. A connection is known by its peer's address, so two at once with the same one are not let in.
 */
import { Result } from "effect"
import type { Socket } from "node:net"
import type { TLSSocket } from "node:tls"
import type { Caller } from "../../schemas/Access.ts"
import type { Unauthenticated } from "../api/Fault.ts"

/** Most connections. */
export interface ConnectionLimits {
  readonly all: number
  /** Of one caller. */
  readonly ofOne: number
  /** That have not shown their certificate yet. More of them push the oldest out, so that none can keep others from coming. */
  readonly shaking: number
}

interface Connection {
  readonly socket: Socket
  readonly peer: string
  secured?: {
    readonly socket: TLSSocket
    readonly identity: Result.Result<Caller, Unauthenticated>
    readonly endsMs: number
    /** At the last look, and for how many looks it has been the same. */
    bytesRead: number
    quiet: number
  }
}

const gone: Unauthenticated = {
  _tag: "Unauthenticated",
  reason: "the connection is gone",
  remedy: "Connect again."
}

const ended: Unauthenticated = {
  _tag: "Unauthenticated",
  reason: "the certificate has ended since the connection was made",
  remedy: "Renew it and connect again: stoker certs renew NAME"
}

/** As gRPC names a peer. */
const peerOf = ({ remoteAddress, remotePort }: Socket): string | undefined =>
  remoteAddress === undefined ? undefined : `${remoteAddress}:${remotePort}`

/** Those of one server. */
export class Connections {
  readonly #limits: ConnectionLimits
  readonly #nowMs: () => number
  readonly #open = new Map<string, Connection>()
  /** In order of their coming. */
  readonly #shaking = new Set<Connection>()
  readonly #ofOne = new Map<string, number>()

  constructor(limits: ConnectionLimits, nowMs: () => number) {
    this.#limits = limits
    this.#nowMs = nowMs
  }

  /** One that has just come, or is refused. */
  opened(socket: Socket): void {
    const peer = peerOf(socket)
    socket.on("error", () => undefined)
    if (peer === undefined) return void socket.destroy()
    const former = this.#open.get(peer)
    if (former !== undefined && !former.socket.destroyed) return void socket.destroy()
    if (this.#shaking.size >= this.#limits.shaking || this.#open.size >= this.#limits.all) {
      const [oldest] = this.#shaking
      if (oldest === undefined) return void socket.destroy()
      this.#close(oldest)
    }
    const connection: Connection = { socket, peer }
    if (former !== undefined) this.#forget(former)
    this.#open.set(peer, connection)
    this.#shaking.add(connection)
    socket.once("close", () => this.#forget(connection))
  }

  /** Its handshake is done. False: it is closed instead. */
  secured(socket: TLSSocket, identify: (from: string) => Result.Result<Caller, Unauthenticated>): boolean {
    socket.on("error", () => undefined)
    const peer = peerOf(socket)
    const connection = peer === undefined ? undefined : this.#open.get(peer)
    if (peer === undefined || connection === undefined || socket.alpnProtocol !== "h2") {
      socket.destroy()
      return false
    }
    const identity = identify(peer)
    const name = nameOf(identity)
    const count = this.#ofOne.get(name) ?? 0
    if (count >= this.#limits.ofOne) {
      socket.destroy()
      return false
    }
    this.#shaking.delete(connection)
    this.#ofOne.set(name, count + 1)
    connection.secured = {
      socket,
      identity,
      endsMs: Date.parse(socket.getPeerCertificate().valid_to),
      bytesRead: 0,
      quiet: 0
    }
    socket.once("close", () => this.#forget(connection))
    return true
  }

  /** By whose certificate a peer stands. */
  caller(peer: string): Caller | Unauthenticated {
    const secured = this.#open.get(peer)?.secured
    if (secured === undefined) return gone
    // Also if the certificate says no date that can be read.
    if (!(this.#nowMs() < secured.endsMs)) return ended
    return Result.isSuccess(secured.identity) ? secured.identity.success : secured.identity.failure
  }

  get size(): number {
    return this.#open.size
  }

  /**
   * Ends those that have said nothing for so many looks, not even that they are there. grpc-js ends its session then, but its
   * socket stays open for as long as the last bytes cannot go out: for ever, if the peer is gone.
   */
  look(mostQuiet: number): void {
    for (const connection of this.#open.values()) {
      const { secured } = connection
      if (secured === undefined) continue
      const { bytesRead } = secured.socket
      secured.quiet = bytesRead === secured.bytesRead ? secured.quiet + 1 : 0
      secured.bytesRead = bytesRead
      if (secured.quiet >= mostQuiet) this.#close(connection)
    }
  }

  /** Ends those that have not come to anything; for the server's end. */
  closeShaking(): void {
    for (const connection of this.#shaking) this.#close(connection)
  }

  closeAll(): void {
    for (const connection of this.#open.values()) this.#close(connection)
  }

  #close(connection: Connection): void {
    connection.secured?.socket.destroy()
    connection.socket.destroy()
    this.#forget(connection)
  }

  #forget(connection: Connection): void {
    this.#shaking.delete(connection)
    if (this.#open.get(connection.peer) !== connection) return
    this.#open.delete(connection.peer)
    if (connection.secured === undefined) return
    const name = nameOf(connection.secured.identity)
    const left = (this.#ofOne.get(name) ?? 1) - 1
    if (left === 0) this.#ofOne.delete(name)
    else this.#ofOne.set(name, left)
  }
}

/** Nobody's name begins with a space, so strangers share one. */
const nameOf = (identity: Result.Result<Caller, Unauthenticated>): string =>
  Result.isSuccess(identity) ? identity.success.name : " strangers"
