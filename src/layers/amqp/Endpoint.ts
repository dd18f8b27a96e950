import { Duration, Effect, Redacted } from "effect"
import type { ConnectionOptions } from "node:tls"
import { AmqpError } from "./Amqp.ts"

/** Where the broker is and how to speak to it. `address` is what may be printed. */
export interface Endpoint {
  readonly address: string
  readonly url: Redacted.Redacted<string>
  readonly connectTimeout: Duration.Duration
  readonly tls: ConnectionOptions | undefined
}

/** Reads an `amqp://` or `amqps://` URL. Its query may set what amqplib reads there; `heartbeat` (seconds) has a default. */
export const make = (options: {
  readonly url: Redacted.Redacted<string>
  readonly connectTimeout: Duration.Duration
  readonly heartbeat: Duration.Duration
  readonly tls: ConnectionOptions | undefined
}): Effect.Effect<Endpoint, AmqpError> =>
  Effect.suspend(() => {
    const text = Redacted.value(options.url)
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (url === undefined || (url.protocol !== "amqp:" && url.protocol !== "amqps:") || url.hostname === "") {
      // No cause: Node's would carry the whole URL, password included.
      return Effect.fail(
        new AmqpError({
          operation: "reading the URL",
          reason: "Invalid",
          broker: "?",
          detail: "the URL is not of the form amqp://user:password@host:port/vhost",
          remedy: "Check AMQP_URL"
        })
      )
    }
    if (!url.searchParams.has("heartbeat")) {
      url.searchParams.set("heartbeat", String(Math.ceil(Duration.toSeconds(options.heartbeat))))
    }
    return Effect.succeed({
      address: `${url.hostname}:${url.port === "" ? (url.protocol === "amqp:" ? 5672 : 5671) : url.port}`,
      url: Redacted.make(url.href, { label: "AMQP_URL" }),
      connectTimeout: options.connectTimeout,
      tls: options.tls
    })
  })
