import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** Where `npm run dev` of the console finds a server; the console itself is at http://localhost:5173/admin/. */
const server = process.env.PANDAPUSH_URL ?? "http://localhost:3000";

export default defineConfig({
  base: "/admin/",
  plugins: [react()],
  build: {
    // Charts are in a file of their own, which only the overview loads.
    chunkSizeWarningLimit: 700,
    sourcemap: false,
  },
  server: {
    proxy: {
      "^/admin/(api|login)": server,
      "^/(channel|api)/": server,
      "/push": { target: server, ws: true },
    },
  },
});
