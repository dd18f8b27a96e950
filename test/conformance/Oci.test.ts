import { suite } from "./Suite.ts"

await suite("oci", [
  "isolation",
  "memory-limit",
  "cpu-limit",
  "pids-limit",
  "disk-limit",
  "usage",
  "own-cpu",
  "memory-workspace",
  "loopback-only"
])
