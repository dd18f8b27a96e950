/** Runs once in vitest's main process. Costs nothing until a test asks for a broker. */
import type { TestProject } from "vitest/node"
import { BrokerPool } from "./BrokerPool.ts"

declare module "vitest" {
  export interface ProvidedContext {
    /** The unix socket of the run's BrokerPool. */
    readonly brokers: string
  }
}

export const setup = async (project: TestProject): Promise<() => void> => {
  const pool = await BrokerPool.open()
  project.provide("brokers", pool.address)
  return () => pool.close()
}
