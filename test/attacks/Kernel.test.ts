import { suite } from "./Attack.ts"
import { attacks } from "./Kernel.ts"

for (const driver of ["oci", "process"]) suite("kernel", attacks, driver)
