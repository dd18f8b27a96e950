/** The floor under the journal: a SQLite file in a thread, two durable writes for each job, those that wait together in one. */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads"

interface Write {
  readonly id: string
  readonly begin: boolean
}

/** Inside the thread: a batch is one transaction. */
const serve = (port: NonNullable<typeof parentPort>, filename: string) => {
  const db = new DatabaseSync(filename)
  db.exec("pragma journal_mode = wal; pragma synchronous = full; create table jobs (id text primary key, state text)")
  const insert = db.prepare("insert or replace into jobs values (?, 'running')")
  const end = db.prepare("update jobs set state = 'ended' where id = ?")
  port.on("message", (batch: ReadonlyArray<Write>) => {
    db.exec("begin immediate")
    for (const { begin, id } of batch) (begin ? insert : end).run(id)
    db.exec("commit")
    port.postMessage("done")
  })
}

if (!isMainThread && parentPort !== null) serve(parentPort, String(workerData))

/** Starts the thread; each write resolves when it is on the disk. */
export const openRaw = (directory: string) => {
  const thread = new Worker(new URL(import.meta.url), { workerData: join(directory, "raw.sqlite") })
  let waiting: Array<Write & { readonly done: () => void }> = []
  let sent: typeof waiting = []
  const pump = () => {
    if (sent.length > 0 || waiting.length === 0) return
    sent = waiting
    waiting = []
    thread.postMessage(sent.map(({ begin, id }) => ({ begin, id })))
  }
  thread.on("message", () => {
    const written = sent
    sent = []
    for (const { done } of written) done()
    pump()
  })
  const write = (id: string, begin: boolean) =>
    new Promise<void>((resolve) => {
      waiting.push({ id, begin, done: resolve })
      pump()
    })
  return {
    begin: (id: string) => write(id, true),
    end: (id: string) => write(id, false),
    close: () => thread.terminate()
  }
}
