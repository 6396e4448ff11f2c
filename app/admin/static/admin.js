// The list that shows changes as they happen asks for itself again, every so many seconds, until it is told to stop.
const live = document.querySelector("[data-live]");
if (live) {
  const button = document.createElement("button");
  let running = true;
  const show = () => {
    button.textContent = running ? "Pause" : "Go on";
    button.toggleAttribute("data-running", running);
    button.setAttribute("aria-label", running ? "Pause: stop showing new changes" : "Go on showing new changes");
  };
  button.type = "button";
  button.className = "live";
  button.addEventListener("click", () => { running = !running; show(); });
  show();
  live.before(button);
  setInterval(async () => {
    if (!running || document.hidden || live.contains(document.activeElement)) return;
    try {
      const answer = await fetch(location.href, { headers: { "Presence-Refresh": "1" } });
      if (answer.redirected) return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (answer.ok && fresh) live.replaceChildren(...fresh.childNodes);
    } catch { /* the server is away; the next time may do */ }
  }, 1000 * Number(live.dataset.live));
}
