// Keeps #live, the part of a page that changes, up to date: fetched every few seconds from its data-live, as long as it has one.
// Without JavaScript the page loads itself anew instead.
"use strict";
const EVERY = 3000; // milliseconds

async function refresh() {
  const live = document.getElementById("live");
  if (!live?.dataset.live) return;
  if (!document.hidden && !isSelectedIn(live)) {
    try {
      const answer = await fetch(live.dataset.live);
      if (answer.redirected) return location.reload(); // signed out meanwhile
      if (answer.ok) replace(live, await answer.text());
    } catch {
      // the launchpad is away for a moment
    }
  }
  setTimeout(refresh, EVERY);
}

// Somebody is copying text
function isSelectedIn(live) {
  const selection = getSelection();
  return !selection.isCollapsed && live.contains(selection.anchorNode);
}

function replace(live, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
  if (!fresh || fresh.outerHTML === live.outerHTML) return;
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  for (const old of live.querySelectorAll("details[id]")) {
    const details = fresh.querySelector("#" + CSS.escape(old.id));
    if (details) details.open = old.open;
  }
  const scrolled = [...live.querySelectorAll("[id]")].filter((part) => part.scrollHeight > part.clientHeight || part.scrollLeft);
  const places = scrolled.map((part) => [part.id, part.scrollLeft, isAtEnd(part) ? Infinity : part.scrollTop]);
  live.replaceWith(fresh);
  for (const [id, left, top] of places) scroll(document.getElementById(id), left, top);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  say(fresh.dataset.said);
}

// Who reads the end of a log sees what is added to it
function isAtEnd(part) {
  return part.scrollTop + part.clientHeight > part.scrollHeight - 8;
}

function scroll(part, left, top) {
  if (!part) return;
  part.scrollLeft = left;
  part.scrollTop = Math.min(top, part.scrollHeight);
}

// For screen readers, and only what is new
function say(text) {
  const place = document.getElementById("said");
  if (place && text && place.textContent !== text) place.textContent = text;
}

for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
setTimeout(refresh, EVERY);
