import { faults } from "./faults.suite.js";

faults("websocket");
