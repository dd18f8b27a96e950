/** What a worker says of itself on its admin socket. */
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { request } from "node:http"
import { join } from "node:path"

/** Prometheus text of the one worker of that state directory. */
export const metricsOf = async (state: string): Promise<string> => {
  const [instance = ""] = readdirSync(join(state, "instances"))
  const asked = request({ socketPath: join(state, "instances", instance, "admin.sock"), path: "/metrics" })
  asked.end()
  const [response] = await once(asked, "response")
  let text = ""
  for await (const bytes of response) text += String(bytes)
  return text
}

/** The sum of all series of a metric whose labels have that text in them. */
export const sumOf = (metrics: string, name: string, label = ""): number =>
  metrics.split("\n")
    .filter((line) => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0)
