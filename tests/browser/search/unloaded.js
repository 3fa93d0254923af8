// Says so if the page's module, or one that it imports, could not be loaded.
addEventListener('error', () => fetch('/report', { method: 'POST', body: '{"failed":"a script could not be loaded"}' }), true);
