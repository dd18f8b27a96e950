/** What callers are shown of jobs and functions. Pure. */
import { Schema } from "effect"
import type { Definition } from "../../schemas/Function.ts"
import { broughtBack } from "../../schemas/JobEvent.ts"
import type { FunctionView, JobView } from "../../schemas/JobView.ts"
import type { JobRecord } from "../journal/Journal.ts"

/** A job as its record has it. Arguments may be large: lists leave them out. */
export const viewOf = (record: JobRecord, options: { readonly args: boolean }): JobView => {
  const { attempt, instance, isTold = false, receivedAtMs, request: { job }, settlement, startedAtMs, state } = record
  const started = settlement === undefined ? startedAtMs : settlement.startedAtMs
  return {
    id: job.id,
    owner: job.owner,
    intake: job.intake,
    function: job.function,
    // Another worker does not tell them.
    ...(options.args && !isTold ? { args: job.args } : {}),
    ...(job.class === undefined ? {} : { class: job.class }),
    state,
    attempt,
    ...(instance === undefined ? {} : { instance }),
    receivedAtMs,
    ...(started === undefined || state === "queued" ? {} : { startedAtMs: started }),
    ...(settlement === undefined ? {} : {
      endedAtMs: settlement.endedAtMs,
      outcome: settlement.outcome,
      usage: settlement.usage,
      output: settlement.output,
      ...broughtBack(settlement)
    })
  }
}

/** The arguments as JSON Schema, with everything it refers to inside. */
const jsonSchemaOf = (args: Schema.Top): Schema.Json => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(args, {
    onExcessProperty: "error",
    generateDescriptions: true
  })
  const whole = Object.keys(definitions).length === 0 ? schema : { ...schema, $defs: definitions }
  // JSON by its making.
  return JSON.parse(JSON.stringify(whole)) as Schema.Json
}

/** A function as it is offered. */
export const functionViewOf = ({ args, description, name, needs, positional, title }: Definition): FunctionView => ({
  name,
  title,
  description,
  args: jsonSchemaOf(args),
  positional: Object.entries(positional).map(([field, word]) => ({ field, word })),
  needsNetwork: needs.network === true
})
