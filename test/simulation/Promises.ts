/** What must be true at the end of a simulation, whatever happened. */
import { Effect, Schema } from "effect"
import type { AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { defaultDeadQueue } from "../../src/layers/deadletters/Keeping.ts"
import { letterHeader } from "../../src/layers/deadletters/LetterHeaders.ts"
import { answerOf } from "../../src/layers/journal/Rules.ts"
import { ended as codeBenchEnded } from "../../src/schemas/dialects/CodeBenchStatus.ts"
import { JobKey, keyText } from "../../src/schemas/Ids.ts"
import type { BroughtBack } from "../../src/schemas/JobEvent.ts"
import type { Outcome } from "../../src/schemas/Outcome.ts"
import { noUsage } from "../../src/schemas/Usage.ts"
import type { Clients, Sent } from "./Clients.ts"
import type { World } from "./World.ts"

type Kind = "received" | "running" | "ended" | "other"

/** One status as a client got it. */
interface Status {
  readonly messageId: string
  readonly key: string
  readonly kind: Kind
  /** 0: it was never claimed. */
  readonly attempt: number
  /** How it ended, in the dialect's words. */
  readonly end: string
}

const utf8 = new TextDecoder()

const wordOf = (body: Readonly<Record<string, unknown>>): Kind => {
  const word = body["event"] ?? body["status"]
  if (word === "received" || word === "running" || word === "ended") return word
  return word === "done" || word === "failed" ? "ended" : "other"
}

const statusOf = ({ body, properties }: AmqpMessage): Status | undefined => {
  const messageId = properties?.messageId ?? ""
  const [key, place] = messageId.split("#")
  if (key === undefined || place === undefined) return undefined
  const said = JSON.parse(utf8.decode(body)) as Readonly<Record<string, unknown>>
  const kind = wordOf(said)
  const end = said["event"] === undefined
    ? JSON.stringify([said["status"], said["message"], said["error"]])
    : JSON.stringify(said["outcome"])
  return { messageId, key, kind, attempt: Number(place.split(".")[0]), end: kind === "ended" ? end : "" }
}

/** The outcome as that status says it. */
const said = (outcome: Outcome, key: string) => {
  if (!key.startsWith("codebench/")) return JSON.stringify(outcome)
  const { error, message, status } = codeBenchEnded("x" as never, outcome, noUsage, { stdout: "", stderr: "" })
  return JSON.stringify([status, message, error])
}

/** First occurrences, in order: what a client that drops repeats sees. */
const once = (statuses: ReadonlyArray<Status>) => {
  const seen = new Set<string>()
  return statuses.filter(({ messageId }) => !seen.has(messageId) && seen.add(messageId))
}

const isIn = (order: ReadonlyArray<Kind>, kind: Kind) => order.indexOf(kind)

type Settled = BroughtBack & { readonly outcome: Outcome }

const decodeKey = Schema.decodeSync(JobKey)

export const check = (world: World, { accepted, all }: Clients, maxAttempts: number) => {
  const { broker, sandboxes, store, violate } = world
  const letters = broker.drainQueue(defaultDeadQueue)
  const letterOf = ({ messageId }: Sent) => letters.find(({ properties }) => properties?.messageId === messageId)
  const byKey = Map.groupBy(world.told.flatMap((message) => statusOf(message) ?? []), ({ key }) => key)

  for (const { properties } of letters) {
    const { headers = {} } = properties ?? {}
    if (headers[letterHeader.reason] === undefined && headers["x-death"] === undefined) {
      violate(`dead letter ${properties?.messageId} has no reason`)
    }
  }

  const hasExpired = (key: string) =>
    all.some((sent) =>
      sent.key !== undefined && keyText(sent.key) === key &&
      letters.some(({ properties }) =>
        properties?.messageId === sent.messageId &&
        properties.headers?.[letterHeader.reason] === "expired in the queue"
      )
    )
  const checkStatuses = (key: string, statuses: ReadonlyArray<Status>, end: string | undefined) => {
    const kinds = new Map<string, Kind>()
    for (const { kind, messageId } of statuses) {
      if ((kinds.get(messageId) ?? kind) !== kind) violate(`${messageId} means ${kinds.get(messageId)} and ${kind}`)
      kinds.set(messageId, kind)
    }
    const claimed = statuses.filter(({ attempt, kind }) => attempt > 0 || kind === "received")
    const order = once(claimed)
    const words = order.map(({ kind }) => kind)
    const ends = new Set(claimed.filter(({ kind }) => kind === "ended").map(({ end }) => end))
    if (ends.size > 1) violate(`${key} has ${ends.size} outcomes: ${[...ends].join(" ")}`)
    if (end === undefined) return
    if (!ends.has(end)) violate(`${key} ended ${end} and was told ${[...ends].join(" ")}`)
    if (isIn(words, "received") !== 0) violate(`${key} was not told as received first: ${words.join(" ")}`)
    const last = isIn(words, "ended")
    const late = order.slice(last).find(({ kind }) => kind === "running" || kind === "other")
    if (late !== undefined) {
      violate(`${key}: ${late.messageId} (${late.kind}) was told after its end`)
    }
  }

  /** What is written down of a job's files is there, and all that were asked for are accounted for. */
  const checkFiles = (key: string, { artefacts = [], artefactsMissing = [], outcome }: Settled, request: string) => {
    const [intake = "", owner = "", id = ""] = key.split("/")
    for (const artefact of artefacts) {
      const read = world.artefacts.read(decodeKey({ intake, owner, id }), artefact, { offset: 0, maxBytes: 1000 })
      const kept = Effect.runSync(Effect.exit(read))
      if (kept._tag === "Failure") violate(`${key} names ${artefact.path}, and it is not there`)
      else if (kept.value.length !== artefact.bytes) violate(`${key} has only a part of ${artefact.path}`)
    }
    const ran = ["Exited", "Signalled", "TimedOut", "OutOfMemory", "OutputExceeded"].includes(outcome._tag)
    const asked = request.includes("\"artefacts\"") ? 2 : 0
    if (ran && artefacts.length + artefactsMissing.length !== asked) violate(`${key} does not account for its files`)
  }

  const rows = new Map(answerOf(store.list({ limit: 1_000_000 })).map((row) => [row.key, row]))
  for (const [key, { request, settlement, state }] of rows) {
    if (state !== "ended" || settlement === null) {
      violate(`${key} is ${state}${hasExpired(key) ? ", and was kept as expired" : ""}`)
      continue
    }
    const settled = JSON.parse(settlement) as Settled
    const { outcome } = settled
    checkFiles(key, settled, request)
    const isTold = !key.startsWith("embedded/")
    checkStatuses(key, byKey.get(key) ?? [], isTold ? said(outcome, key) : undefined)
  }
  for (const [key, statuses] of byKey) if (!rows.has(key)) checkStatuses(key, statuses, undefined)

  for (const sent of accepted) {
    const key = sent.key === undefined ? undefined : keyText(sent.key)
    const row = key === undefined ? undefined : rows.get(key)
    if (row?.request.includes(JSON.stringify(sent.command)) === true) continue
    if (sent.isEmbedded) {
      violate(`${key} was accepted and is not in the journal`)
      continue
    }
    if (letterOf(sent) === undefined) violate(`${sent.messageId} (${key}) is neither settled nor a dead letter`)
    const isToldSo = (byKey.get(key ?? "") ?? []).some(({ attempt, kind }) => attempt === 0 && kind === "ended")
    if (key !== undefined && !isToldSo) violate(`${sent.messageId} (${key}) was refused and its sender not told`)
  }

  for (const sent of all) {
    if (sent.key === undefined) continue
    const key = keyText(sent.key)
    const { begun, firstAtMs } = sandboxes.runsOf(key)
    const same = all.filter((other) => other.key !== undefined && keyText(other.key) === key)
    const most = Math.max(...same.map(({ tries }) => tries)) * maxAttempts
    const uncounted = world.givenBack.get(key) ?? 0
    if (begun - uncounted > most) violate(`${key} ran ${begun} times (${uncounted} uncounted), more than ${most}`)
    const earliestMs = Math.min(...same.map(({ notBeforeMs }) => notBeforeMs))
    if (firstAtMs < earliestMs) violate(`${key} ran ${earliestMs - firstAtMs} ms before its time`)
  }

  for (const { name, ready, unacked } of broker.left()) {
    if (!/^(client\.|job_status_)/.test(name)) violate(`queue ${name} has ${ready} messages and ${unacked} unacked`)
  }
  const owed = answerOf(store.owed(10))
  if (owed.length > 0) violate(`owed still: ${owed.map(({ id }) => id).join(" ")}`)
  if (sandboxes.there().length > 0) violate(`sandboxes are left: ${sandboxes.there().join(" ")}`)
  if (world.ledger.size > 0) violate(`ledger rows are left: ${[...world.ledger.keys()].join(" ")}`)
  const groups = world.kernel.directories("/sys/fs/cgroup").filter((name) => name !== "stoker-worker")
  if (groups.length > 0) violate(`cgroups are left: ${groups.join(" ")}`)
  const listed = [...world.workers.values()].filter(({ isListed }) => isListed).map(({ name }) => name)
  if (listed.length > 0) violate(`instance directories are left: ${listed.join(" ")}`)
  if (broker.connections().length > 0) violate("a connection is left")
}
