import { faults } from "./faults.suite.js";

faults("long-polling");
