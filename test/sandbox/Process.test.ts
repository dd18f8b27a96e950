import { suite } from "./faults.ts"

suite("process", new Set(["memory-limit", "cpu-limit", "pids-limit", "usage"]))
