import { suite } from "./Attack.ts"
import { attacks } from "./Processes.ts"

for (const driver of ["oci", "process"]) suite("processes", attacks, driver)
