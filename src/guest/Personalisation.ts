/**
 * The first words to a machine: what makes of one among many copies this machine and no other. Pure: a frame out, and whether
 * the answer to it will do. `native/init/personalise.c` is the other side; after it, the guest speaks.
 */
import { Result, Schema } from "effect"
import { timingSafeEqual } from "node:crypto"
import { frame, headerBytes, type PersonalisedFrame } from "./Protocol.ts"

const type = 0x20

/** Of the payload, after which the other side looks for nothing newer. */
const version = 1

/** Bytes of a token. */
export const tokenBytes = 32

/** The least and the most bytes of entropy. */
export const entropyBytes = { min: 64, max: 512 } as const

/** The most bytes of a resolv.conf. */
export const maxResolvConfBytes = 4096

const maxHostnameBytes = 64

/** What a machine is to be from now on. */
export interface Personalisation {
  /** Since 1970. `wire` puts in the moment at which it passes the frame on, so that waiting for the machine does not count. */
  readonly clockMillis: number
  /** Random, of `tokenBytes`: an answer without it is not an answer to this. */
  readonly token: Uint8Array
  /** Random, of `entropyBytes`. */
  readonly entropy: Uint8Array
  readonly hostname: string
  /** Whether it may have a way out by its end of the tap. */
  readonly defaultRoute: boolean
  /** The text of its /etc/resolv.conf. */
  readonly resolvConf: string
}

/** It was not sent: one of its parts is not what it may be. */
export class PersonalisationInvalid
  extends Schema.TaggedError<PersonalisationInvalid>()("PersonalisationInvalid", { problem: Schema.String })
{
  override get message() {
    return `the machine was not personalised: ${this.problem}`
  }
}

const problemOf = (is: Personalisation): string | undefined => {
  if (!Number.isFinite(is.clockMillis) || is.clockMillis < 0) return `${is.clockMillis} is no time`
  if (is.token.length !== tokenBytes) return `a token of ${is.token.length} bytes, it has ${tokenBytes}`
  const { max, min } = entropyBytes
  if (is.entropy.length < min || is.entropy.length > max) {
    return `entropy of ${is.entropy.length} bytes, permitted are ${min} to ${max}`
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9.-]*$/.test(is.hostname) || is.hostname.length > maxHostnameBytes) {
    return `${JSON.stringify(is.hostname)} is no host name`
  }
  const resolvConf = Buffer.byteLength(is.resolvConf)
  if (resolvConf > maxResolvConfBytes) return `a resolv.conf of ${resolvConf} bytes, ${maxResolvConfBytes} is the most`
  return undefined
}

/** The frame, with the sequence number 0. */
export const encode = (is: Personalisation): Result.Result<Uint8Array, PersonalisationInvalid> => {
  const problem = problemOf(is)
  if (problem !== undefined) return Result.fail(new PersonalisationInvalid({ problem }))
  const hostname = Buffer.from(is.hostname)
  const resolvConf = Buffer.from(is.resolvConf)
  const seconds = Math.floor(is.clockMillis / 1000)
  const head = Buffer.alloc(16)
  head.writeUInt32LE(version, 0)
  head.writeBigInt64LE(BigInt(seconds), 4)
  head.writeUInt32LE(Math.floor((is.clockMillis - seconds * 1000) * 1e6), 12)
  const sized = (bytes: Uint8Array) => {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(bytes.length)
    return [length, bytes]
  }
  const flags = Uint8Array.of(is.defaultRoute ? 1 : 0)
  const payload = Buffer.concat([head, is.token, ...sized(is.entropy), ...sized(hostname), flags, ...sized(resolvConf)])
  const bytes = frame(type, 0, payload.length)
  payload.copy(bytes, headerBytes)
  return Result.succeed(bytes)
}

/** The most by which the machine's clock may be off when its answer comes. */
export const clockToleranceMillis = 2000

/** Why an answer will not do, or nothing: another machine's, or one whose clock or entropy did not take. */
export const refusal = (
  sent: Pick<Personalisation, "token">,
  answer: PersonalisedFrame,
  nowMillis: number
): string | undefined => {
  if (answer.token.length !== sent.token.length || !timingSafeEqual(answer.token, sent.token)) {
    return "it answered with another machine's token"
  }
  const off = answer.seconds * 1000 + answer.nanoseconds / 1e6 - nowMillis
  if (Math.abs(off) > clockToleranceMillis) {
    return `its clock is ${Math.round(off)} ms off, ${clockToleranceMillis} ms are permitted`
  }
  if (answer.machineId.every((byte) => byte === answer.machineId[0])) return "its machine id is not random"
  return undefined
}
