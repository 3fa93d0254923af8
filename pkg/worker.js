// The entry of a worker, in a browser or in Node.
import { isNode, nodeModule } from './environment.js';
import { createService } from './service.js';
// Named here too, so that it is asked for at once with the others.
import './wasm/munjang.js';

if (isNode) {
  // Not awaited: a worker bundled as a classic script cannot wait at its top level. Messages that
  // come before the listener are kept.
  void nodeModule('node:worker_threads').then(({ parentPort }) => {
    parentPort.on('message', createService((message, transfer) => parentPort.postMessage(message, transfer)));
  });
} else {
  const serve = createService((message, transfer = []) => self.postMessage(message, { transfer }));
  self.onmessage = (event) => void serve(event.data);
}
