import { suite } from "./faults.ts"

suite("oci", new Set(["isolation", "memory-limit", "cpu-limit", "pids-limit", "disk-limit", "usage"]))
