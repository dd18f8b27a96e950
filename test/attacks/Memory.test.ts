import { suite } from "./Attack.ts"
import { attacks } from "./Memory.ts"

for (const driver of ["oci", "process"]) suite("memory", attacks, driver)
