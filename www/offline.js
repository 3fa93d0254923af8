// Registers the service worker that keeps the site for visits without a network (sw.js).

/**
 * The worker's scope must hold the pages and the package beside them. Where a server does not allow that to a file
 * below (Service-Worker-Allowed), one that lies above them may do it; without either, no harm.
 */
export async function keepForOffline() {
  // In some frames it throws to ask.
  const container = (() => {
    try {
      return navigator.serviceWorker;
    } catch {
      return undefined;
    }
  })();
  if (!container) return;
  const registration = await container.register('sw.js', { scope: '../', updateViaCache: 'none' })
    .catch(() => container.register('../sw.js', { updateViaCache: 'none' }))
    .catch(() => container.register('sw.js', { updateViaCache: 'none' }))
    .catch(() => undefined);
  if (!registration) return;
  // Registering anew does not ask for a newer version; browsers do so by themselves when they see fit.
  if (!registration.waiting) void registration.update().catch(() => {});
  // A newer version that came with an earlier visit: this page has just begun, so nothing is lost by beginning again.
  if (!registration.waiting || !container.controller) return;
  container.addEventListener('controllerchange', () => location.reload(), { once: true });
  registration.waiting.postMessage('take over');
}
