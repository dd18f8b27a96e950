import { suite } from "./Attack.ts"
import { attacks } from "./Neighbours.ts"

for (const driver of ["oci", "process"]) suite("neighbours", attacks, driver)
