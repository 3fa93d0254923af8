export * from './cache.js';
export * from './environment.js';
export * from './errors.js';
export * from './protocol.js';
