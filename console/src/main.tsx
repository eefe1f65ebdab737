import "@mantine/core/styles.css";
import "@mantine/dates/styles.css";
import "@mantine/charts/styles.css";
import "@mantine/notifications/styles.css";
import "./console.css";
import { createRoot } from "react-dom/client";
import { Console } from "./console.js";
import { keepFocus } from "./ui/focus.js";

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no #root");
keepFocus();
createRoot(root).render(<Console />);
