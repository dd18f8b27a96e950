import { Predicate } from "effect"
import { AmqpError } from "./Amqp.ts"

/** The AMQP reply code of an amqplib error (404, 406, ...), if the broker sent one; socket errors have none. */
export const replyCode = (cause: unknown): number | undefined =>
  Predicate.hasProperty(cause, "code") && Predicate.isNumber(cause.code) ? cause.code : undefined

/** The words of a foreign error, without its stack. A dial that failed at several addresses has only a code. */
export const words = (cause: unknown): string => {
  if (!Predicate.isError(cause)) return String(cause)
  if (cause.message !== "") return cause.message
  return Predicate.hasProperty(cause, "code") ? String(cause.code) : cause.name
}

/** Makes the errors of one broker, known by its address. */
export const at =
  (broker: string) => (reason: AmqpError["reason"], operation: string, remedy: string, cause: unknown): AmqpError =>
    new AmqpError({ operation, reason, broker, detail: words(cause), remedy, cause })
