/**
 * Every metric of a worker, once. `infra/METRICS.md` is made from this list, and the dashboard and the alert rules in
 * `infra` may name nothing else: a test sees to it. Labels come from bounded sets: never a job's id or owner.
 */
import type { Context } from "effect"
import { type Counter, counter, type Definition, gauge, type Histogram, type Labels, seconds } from "./Instrument.ts"

export const metrics = {
  jobsReceived: counter("stoker_jobs_received_total", {
    unit: "jobs",
    labels: ["intake"],
    help: "Deliveries taken in hand, repeats that joined a job in hand left out"
  }),
  jobs: counter("stoker_jobs_total", {
    unit: "jobs",
    labels: ["intake", "function", "class", "outcome"],
    help: "Jobs whose outcome this worker wrote down; answers told again are not counted again"
  }),
  jobRetries: counter("stoker_job_retries_total", {
    unit: "tries",
    labels: ["intake"],
    help: "Tries that ended and were put off to another one instead of being settled"
  }),
  deliveries: counter("stoker_deliveries_total", {
    unit: "deliveries",
    labels: ["intake", "end"],
    help: "How deliveries were parted with: acked, rejected (dead letter), given_back"
  }),
  claimsLost: counter("stoker_claims_lost_total", {
    unit: "claims",
    help: "Claims (leases) that another worker took over while the job was in hand here"
  }),
  jobQueue: seconds("stoker_job_queue_seconds", {
    labels: ["intake"],
    help: "From the worker's receipt of a job to its claim: the wait for a slot. Time in a broker's queue is not in it"
  }),
  jobClaim: seconds("stoker_job_claim_seconds", { help: "Claiming a job in the journal" }),
  jobProvision: seconds("stoker_job_provision_seconds", {
    labels: ["class"],
    help: "From asking for a sandbox to having it, warm or cold"
  }),
  jobPhase: seconds("stoker_job_phase_seconds", {
    labels: ["function", "phase"],
    help: "Elapsed time of a phase, as the sandbox measured it; compiles that the cache spared are left out"
  }),
  jobTeardown: seconds("stoker_job_teardown_seconds", {
    labels: ["class"],
    help: "From a known outcome until nothing of the sandbox is left; no job and nobody who is told waits for it"
  }),
  jobSettle: seconds("stoker_job_settle_seconds", { help: "Writing down an outcome with what it owes" }),
  jobTell: seconds("stoker_job_tell_seconds", {
    help: "From the written outcome until all its messages are confirmed"
  }),
  job: seconds("stoker_job_seconds", {
    labels: ["intake", "function"],
    help: "From the worker's receipt of a job to the last confirmed message about it"
  }),
  jobsInHand: gauge("stoker_jobs_in_hand", { unit: "jobs", help: "Jobs taken and not yet parted with" }),
  jobsWaiting: gauge("stoker_jobs_waiting", { unit: "jobs", help: "Jobs in hand that were not granted to run yet" }),
  jobsRunning: gauge("stoker_jobs_running", {
    unit: "jobs",
    help: "Jobs that were granted to run and are not parted with"
  }),
  slots: gauge("stoker_slots", { unit: "jobs", help: "Jobs that may run at once" }),
  waitingPlaces: gauge("stoker_waiting_places", {
    unit: "jobs",
    help: "Jobs that may be in hand beside those that run"
  }),

  poolSandboxes: gauge("stoker_pool_sandboxes", {
    unit: "sandboxes",
    labels: ["class", "state"],
    help: "Sandboxes by state: idle (ready), used, making, leaving (teardown not ended)"
  }),
  poolTarget: gauge("stoker_pool_target_sandboxes", {
    unit: "sandboxes",
    labels: ["class"],
    help: "Sandboxes that should stand ready now"
  }),
  poolWaiting: gauge("stoker_pool_waiting_jobs", {
    unit: "jobs",
    labels: ["class"],
    help: "Jobs that wait for a sandbox, or for room in the budget to make one"
  }),
  poolTakes: counter("stoker_pool_takes_total", {
    unit: "takes",
    labels: ["class", "result"],
    help: "Sandboxes asked for: hit (one stood ready), miss (waited for one, or refused), cold (none could serve)"
  }),
  poolFailures: counter("stoker_pool_failures_total", {
    unit: "sandboxes",
    labels: ["class"],
    help: "Sandboxes that could not be made"
  }),
  poolDiscarded: counter("stoker_pool_discarded_total", {
    unit: "sandboxes",
    labels: ["class", "reason"],
    help: "Ready sandboxes nobody took: expired (age), lost (died or silent), given_up (room for another class)"
  }),
  poolLastProvision: gauge("stoker_pool_last_provision_seconds", {
    unit: "seconds",
    labels: ["class"],
    help: "How long the last sandbox of the pool took to make"
  }),
  poolFailing: gauge("stoker_pool_failing_seconds", {
    unit: "seconds",
    labels: ["class"],
    help: "For how long no sandbox could be made; 0 while the pool works"
  }),
  machines: gauge("stoker_machines", {
    unit: "machines",
    labels: ["driver", "state"],
    help: "MicroVMs by state: reserving, network, booting, ready (not used yet), leased, stopping"
  }),
  machineState: seconds("stoker_machine_state_seconds", {
    labels: ["driver", "state"],
    help: "How long microVMs were in a state when they left it: booting is boot or restore until the guest is confirmed"
  }),
  machineStarts: counter("stoker_machine_starts_total", {
    unit: "machines",
    labels: ["driver", "kind"],
    help: "MicroVMs whose guest was heard and confirmed, by how they came to be: booted, restored"
  }),
  budgetMemory: gauge("stoker_budget_memory_bytes", {
    unit: "bytes",
    labels: ["kind"],
    help: "Memory charged for sandboxes: held now, and the limit if there is one"
  }),
  budgetCpus: gauge("stoker_budget_cpu_cores", {
    unit: "cores",
    labels: ["kind"],
    help: "Cores charged for sandboxes: held now, and the limit if there is one"
  }),
  budgetSandboxes: gauge("stoker_budget_sandboxes", {
    unit: "sandboxes",
    labels: ["kind"],
    help: "Sandboxes charged: held now, and the limit if there is one"
  }),

  compileCache: counter("stoker_compile_cache_lookups_total", {
    unit: "compiles",
    labels: ["result"],
    help: "Programs looked for in the compile cache before they were compiled: hit (not compiled), miss"
  }),
  compileCacheBytes: gauge("stoker_compile_cache_bytes", {
    unit: "bytes",
    help: "What the compile cache held on the disk when this worker counted last. Absent before and without it"
  }),

  journalOperation: seconds("stoker_journal_operation_seconds", {
    labels: ["operation"],
    help: "One operation of the journal, from asking to its answer; it fsyncs what it writes"
  }),
  journalErrors: counter("stoker_journal_errors_total", {
    unit: "operations",
    labels: ["operation"],
    help: "Operations of the journal that failed; those that must succeed are tried again"
  }),
  journalBatches: counter("stoker_journal_batches_total", {
    unit: "transactions",
    help: "Transactions of the journal, each with one or many operations"
  }),
  journalQueued: gauge("stoker_journal_queued_jobs", {
    unit: "jobs",
    help: "Rows of the embedded queue that nobody has claimed"
  }),
  outboxOwed: gauge("stoker_outbox_messages", {
    unit: "messages",
    help: "Messages in the journal's outbox, not yet confirmed and struck off"
  }),

  messagesSent: counter("stoker_messages_sent_total", {
    unit: "messages",
    labels: ["emitter"],
    help: "Messages about jobs handed to the broker's connection, repeats included"
  }),
  messagesConfirmed: counter("stoker_messages_confirmed_total", {
    unit: "messages",
    labels: ["emitter"],
    help: "Messages about jobs that the broker confirmed"
  }),
  messagesUnroutable: counter("stoker_messages_unroutable_total", {
    unit: "messages",
    labels: ["emitter"],
    help: "Messages confirmed by the broker that no queue was bound for"
  }),
  messagesUndeliverable: counter("stoker_messages_undeliverable_total", {
    unit: "messages",
    labels: ["emitter"],
    help: "Messages given up: the broker would not take them"
  }),
  deadLetters: counter("stoker_dead_letters_total", {
    unit: "messages",
    help: "Messages kept as dead letters, each with its reason (stoker dead list)"
  }),
  brokerConnected: gauge("stoker_broker_connected", {
    unit: "1 or 0",
    help: "Both connections to the broker are up. Absent without a broker"
  }),
  brokerBlocked: gauge("stoker_broker_blocked", {
    unit: "1 or 0",
    help: "The broker holds publishing back (memory or disk alarm). Absent without a broker"
  }),
  brokerConnects: counter("stoker_broker_connects_total", {
    unit: "connections",
    labels: ["connection"],
    help: "Connections made, publish and consume; each one after the first is a reconnect"
  }),

  logBytes: counter("stoker_log_bytes_total", {
    unit: "bytes",
    labels: ["stream"],
    help: "Output of jobs that reached their logs, kept or left out"
  }),
  logDropped: counter("stoker_log_dropped_bytes_total", {
    unit: "bytes",
    labels: ["stream"],
    help: "Output left out of logs: the middle of what was over its limit"
  }),
  logGaps: counter("stoker_log_gaps_total", { unit: "gaps", help: "Gaps in logs, one for each stream over its limit" }),
  logFollowers: gauge("stoker_log_followers", { unit: "readers", help: "Readers that wait for more of a log now" }),

  janitorSweeps: counter("stoker_janitor_sweeps_total", { unit: "rounds", help: "Rounds of the janitor that ended" }),
  janitorRemoved: counter("stoker_janitor_removed_total", {
    unit: "things",
    labels: ["kind"],
    help: "What dead workers left and the janitor removed or freed: instances, sandboxes, jobs"
  }),
  janitorLeft: gauge("stoker_janitor_left", {
    unit: "rows",
    help: "What could not be proven gone in the last round; it is tried again"
  }),

  stateFree: gauge("stoker_state_free_bytes", {
    unit: "bytes",
    help: "Free in the file system of the state directory, for this user"
  }),
  stateSize: gauge("stoker_state_size_bytes", {
    unit: "bytes",
    help: "Size of the file system of the state directory"
  }),
  stateReserve: gauge("stoker_state_reserve_bytes", {
    unit: "bytes",
    help: "With less than this free no new job is taken"
  }),
  loopDelay: gauge("stoker_event_loop_delay_seconds", {
    unit: "seconds",
    labels: ["statistic"],
    help:
      "Delay of the event loop within the last 15 s: p50, p99, max. Above 0.1 everything is late; below 0.05 it may hide"
  }),
  loopUtilization: gauge("stoker_event_loop_utilization_ratio", {
    unit: "ratio",
    help: "Share of the last 15 s in which the event loop worked; 1 is all of one core"
  }),
  processCpu: counter("stoker_process_cpu_seconds_total", {
    unit: "seconds",
    help: "CPU time of the worker process, its threads included, its jobs not"
  }),
  processMemory: gauge("stoker_process_resident_memory_bytes", {
    unit: "bytes",
    help: "Resident memory of the worker process"
  }),
  processHeap: gauge("stoker_process_heap_bytes", { unit: "bytes", help: "Used heap of the worker's main thread" }),
  processUptime: gauge("stoker_process_uptime_seconds", { unit: "seconds", help: "Since the process started" }),
  build: gauge("stoker_build_info", {
    unit: "1",
    labels: ["version", "node", "instance_id"],
    help: "Always 1: the version of Stoker and of Node, and the worker's instance id"
  }),
  otlpFailures: counter("stoker_otlp_failures_total", {
    unit: "requests",
    help: "Requests to the OTLP endpoint that failed, each try counted"
  })
} as const

/** As data, in the order of the page. */
export const definitions: ReadonlyArray<Definition> = Object.values(metrics)

/** Counts from where there is no Effect. */
export const count = <L extends string>(
  context: Context.Context<never>,
  counted: Counter<L>,
  labels: Labels<L>,
  by = 1
): void => counted.series(labels).updateUnsafe(by, context)

/** Observes a time that is known in microseconds. */
export const observeMicros = <L extends string>(
  context: Context.Context<never>,
  histogram: Histogram<L>,
  labels: Labels<L>,
  micros: number
): void => histogram.series(labels).updateUnsafe(micros / 1e6, context)

const unlabelled = [
  metrics.claimsLost,
  metrics.journalBatches,
  metrics.deadLetters,
  metrics.logGaps,
  metrics.janitorSweeps,
  metrics.jobClaim,
  metrics.jobSettle,
  metrics.jobTell
]

/**
 * Shows what has no labels and was never counted as 0, so that its first event is a rise and not a beginning. Gauges are
 * left out: one that nobody sets (no broker) must stay absent.
 */
export const begin = (context: Context.Context<never>): void => {
  for (const { series } of unlabelled) series({}).valueUnsafe(context)
}
