// Preloaded into NNI's web server (node --require): a listen() without an address gets 127.0.0.1, not "all interfaces".
// NNI 3.0 has no setting for this, no password, and runs what it is sent: whoever reaches its port owns the account.
const net = require('node:net');
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (first, ...rest) {
    if (first === undefined || first === null || typeof first === 'function') // listen([callback]): any free port
        return listen.call(this, 0, '127.0.0.1', ...[first, ...rest].filter((argument) => typeof argument === 'function'));
    const isPort = typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first));
    if (isPort) { // listen(port[, host][, backlog][, callback])
        if (typeof rest[0] === 'string' || rest[0] === null || rest[0] === undefined) rest.shift();
        return listen.call(this, first, '127.0.0.1', ...rest);
    }
    if (first !== null && typeof first === 'object' && first.port !== undefined) // listen({port, ...}[, callback])
        return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest);
    return listen.call(this, first, ...rest); // a pipe or a handle
};

// NNI gives its tuner 10 s to start and connect: too few to import NNI on a busy machine. It gets 60.
const timer = globalThis.setTimeout;
const patient = function (callback, milliseconds, ...rest) {
    const ofTuner = milliseconds === 10000 && String(callback).includes('Tuner did not connect');
    return timer(callback, ofTuner ? 60000 : milliseconds, ...rest);
};
globalThis.setTimeout = Object.defineProperties(patient, Object.getOwnPropertyDescriptors(timer)); // promisify's, too
