/** A dead letter as AMQP brings it, and the message it is made into when it is sent again. */
import type { ConfirmChannel, ConsumeMessage, Options } from "amqplib"
import { Predicate, Redacted } from "effect"
import { createHash } from "node:crypto"
import { header } from "../../schemas/dialects/StokerJob.ts"
import { AmqpError, type AmqpMessage } from "../amqp/Amqp.ts"
import * as Fault from "../amqp/Fault.ts"
import { functionsExchange } from "../intake/StokerTopology.ts"
import type { OpenLetter } from "./DeadLetters.ts"
import { letterHeader, senderHeaders } from "./LetterHeaders.ts"

const text = (value: unknown): string | undefined => (Predicate.isString(value) ? value : undefined)

/** What the broker wrote when it put the letter there itself (header `x-death`). */
const deathOf = (headers: Readonly<Record<string, unknown>>) => {
  const deaths = headers["x-death"]
  const last: unknown = Array.isArray(deaths) ? deaths[0] : undefined
  if (!Predicate.hasProperty(last, "reason") || !Predicate.hasProperty(last, "queue")) return undefined
  return { reason: text(last.reason) ?? "unknown", queue: text(last.queue) ?? "" }
}

const brokersReasons: Readonly<Record<string, readonly [reason: string, remedy: string]>> = {
  delivery_limit: [
    "it was handed out too often and never settled",
    "See what it does to workers before sending it again"
  ],
  expired: ["its lifetime at the broker was over", "Send it again if it is still wanted"],
  maxlen: ["its queue was full", "Send it again when there is room"],
  rejected: ["a consumer rejected it", "See the consumers' logs"]
}

/** A letter of the dead queue. */
export const read = (deadQueue: string, { content, fields, properties }: ConsumeMessage): OpenLetter => {
  const headers: Readonly<Record<string, unknown>> = properties.headers ?? {}
  const death = deathOf(headers)
  const [why, remedy] = brokersReasons[death?.reason ?? ""] ??
    ["somebody put it here without a reason", "Ask its sender"]
  const queue = text(headers[letterHeader.queue]) ?? death?.queue ?? deadQueue
  const time = text(headers[letterHeader.time])
  const messageId = text(properties.messageId)
  const user = text(headers[letterHeader.userId]) ?? text(properties.userId)
  const reason = text(headers[letterHeader.reason]) ?? why
  const id = createHash("sha256")
    .update(JSON.stringify([reason, queue, time ?? null, messageId ?? null, fields.exchange]))
    .update(content)
    .digest("hex")
    .slice(0, 16)
  return {
    id,
    reason,
    remedy: text(headers[letterHeader.remedy]) ?? remedy,
    queue,
    ...(time === undefined ? {} : { time }),
    ...(messageId === undefined ? {} : { messageId }),
    ...(user === undefined ? {} : { user }),
    bytes: content.byteLength,
    isCut: headers[letterHeader.bytes] !== undefined,
    headers,
    body: content
  }
}

/** Of a try that is over. */
const spent: ReadonlySet<string> = new Set([
  header.attempt,
  header.returns,
  header.delay,
  header.notBefore,
  header.sentAt,
  header.owner
])

/**
 * Whose the message is, if the broker vouched for it: the user who put it there, or whom that one speaks for. A header
 * alone proves nothing, since whoever sends jobs could write letters.
 */
const ownerOf = ({ headers }: OpenLetter, putBy: string | undefined, spokesmen: ReadonlyArray<string>) =>
  putBy !== undefined && spokesmen.includes(putBy) ? text(headers[header.owner]) ?? putBy : putBy

/** The message as if it were sent for the first time, by `user`, for its owner. */
export const again = (
  letter: OpenLetter,
  { properties }: ConsumeMessage,
  { nowMs, spokesmen, user }: {
    readonly user: string | undefined
    readonly spokesmen: ReadonlyArray<string>
    readonly nowMs: number
  }
): AmqpMessage => {
  const exchange = text(letter.headers[letterHeader.exchange])
  const routingKey = text(letter.headers[letterHeader.routingKey])
  const owner = user === undefined ? undefined : ownerOf(letter, text(properties.userId), spokesmen)
  const kept = ["contentType", "contentEncoding", "correlationId", "replyTo", "messageId", "type", "appId"] as const
  // A message that came through a wait queue has that exchange; its queue is what counts.
  const isDirect = exchange === undefined || routingKey === undefined ||
    (exchange.startsWith("stoker.") && exchange !== functionsExchange())
  return {
    exchange: isDirect ? "" : exchange,
    routingKey: isDirect ? letter.queue : routingKey,
    body: letter.body,
    properties: {
      ...Object.fromEntries(
        kept.flatMap((name) => Predicate.isString(properties[name]) ? [[name, properties[name]]] : [])
      ),
      ...(owner === undefined || user === undefined ? {} : { userId: user }),
      headers: {
        ...Object.fromEntries(Object.entries(senderHeaders(letter.headers)).filter(([name]) => !spent.has(name))),
        [header.sentAt]: nowMs,
        ...(owner === undefined ? {} : { [header.owner]: owner })
      }
    }
  }
}

/** Whether a queue took it; rejects if the broker refused it. */
export const publish = (channel: ConfirmChannel, message: AmqpMessage): Promise<boolean> =>
  new Promise((resolve, reject) => {
    let isRouted = true
    const returned = () => {
      isRouted = false
    }
    const closed = () => reject(new Error("the channel closed before the broker answered"))
    channel.once("return", returned)
    channel.once("close", closed)
    const options: Options.Publish = { ...message.properties, persistent: true, mandatory: true }
    channel.publish(message.exchange, message.routingKey, Buffer.from(message.body), options, (error: unknown) => {
      channel.off("return", returned)
      channel.off("close", closed)
      if (Predicate.isNullish(error)) resolve(isRouted)
      else reject(error)
    })
  })

/** The user of an AMQP URL. */
export const userOf = (url: Redacted.Redacted<string>): string | undefined => {
  const value = Redacted.value(url)
  if (!URL.canParse(value)) return undefined
  const { username } = new URL(value)
  return username === "" ? "guest" : decodeURIComponent(username)
}

/** The broker's 404. */
export const isMissing = (cause: unknown): boolean => cause instanceof AmqpError && Fault.replyCode(cause.cause) === 404
