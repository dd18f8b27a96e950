import { suite } from "./Suite.ts"

await suite("process", ["memory-limit", "cpu-limit", "pids-limit", "usage", "own-cpu"])
