/** The headers of a dead letter: those of its sender, and ours, which say why it is there and where it was. */

/** Written by `Keeping`. Time is ISO 8601; `bytes` is there if the body had to be cut, and says its length before. */
export const letterHeader = {
  reason: "x-stoker-reason",
  remedy: "x-stoker-remedy",
  queue: "x-stoker-queue",
  exchange: "x-stoker-exchange",
  routingKey: "x-stoker-routing-key",
  time: "x-stoker-time",
  userId: "x-stoker-user-id",
  bytes: "x-stoker-bytes"
} as const

/** What a broker writes on its way: on RabbitMQ 3 it would believe its own words if it got them back. */
const brokers = /^x-(death|first-death-|last-death-|delivery-count|acquired-count|opt-)/

const ours: ReadonlySet<string> = new Set(Object.values(letterHeader))

/** The headers as the sender wrote them: to be sent again. */
export const senderHeaders = (headers: Readonly<Record<string, unknown>> = {}): Record<string, unknown> =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !brokers.test(name) && !ours.has(name)))
